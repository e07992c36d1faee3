"""What the stateful test of the table draws from: hosts of both families, ports that matter."""

from hypothesis import strategies as st

from nat_table.binding import ANYONE, Kind, Owner, Permit
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import Source, lease_owner

OUTSIDER = "fd00:0:0:ff00::20"

transports = st.sampled_from([Transport.UDP, Transport.UDP, Transport.UDP, Transport.TCP])
hosts = st.sampled_from(
    [*(f"10.0.0.{host}" for host in range(20, 24)), "fd00::20", "fd00::21", "fd00::22", OUTSIDER]
)
ports = st.sampled_from([80, 4000, 4001, 4002, 4003, 5061, 20000, 20003, 60999, 61000])
endpoints = st.builds(Endpoint, hosts, ports)
owners = st.sampled_from(
    [Owner("call", "a"), Owner("call", "b"), Owner("flow"), lease_owner(Source.PCP, "nonce")]
)
kinds = st.sampled_from([Kind.SIP, Kind.ANY])
remotes = st.lists(
    st.sampled_from(
        [
            Endpoint("198.51.100.1", 5060),
            Endpoint("198.51.100.1", 9),
            Endpoint("198.51.100.2", 9),
            Endpoint("198.51.100.3", 9),
        ]
    ),
    max_size=3,
).map(tuple)
permits = st.lists(
    st.sampled_from([ANYONE, Permit("198.51.100.0/24"), Permit("198.51.100.0/24", 9)]), max_size=2
).map(tuple)
lifetimes = st.sampled_from([1.0, 30.0, 60.0, 300.0])


def stranger(external_address: str, port: int) -> Endpoint:
    """Returns an endpoint of a host that has no bindings, of the external address's family."""
    return Endpoint("fd00::99" if ":" in external_address else "10.0.0.99", port)
