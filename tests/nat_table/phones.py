"""The phones, calls and remotes of the table's tests, and how they are bound."""

import random

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable

EXTERNAL = "203.0.113.1"
PHONE, OTHER = "10.0.0.20", "10.0.0.21"
SIP, RTP, RTCP = Endpoint(PHONE, 5060), Endpoint(PHONE, 4000), Endpoint(PHONE, 4001)
CALL, SECOND_CALL = Owner("call", "a@10.0.0.20", "1"), Owner("call", "b@10.0.0.20", "2")
REGISTRATION, FLOW = Owner("registration", "r@10.0.0.20"), Owner("flow")
REMOTE, OTHER_REMOTE = Endpoint("203.0.113.10", 5060), Endpoint("203.0.113.11", 5060)


def new_table(*addresses: str, seed: int = 1, **knobs: object) -> NatTable:
    behavior = Behavior(**knobs)  # type: ignore[arg-type]
    return NatTable(addresses or [EXTERNAL], behavior, random.Random(seed))


def bind(
    table: NatTable,
    internal: Endpoint = SIP,
    owner: Owner = FLOW,
    *,
    now: float = 0.0,
    expires_at: float = 300.0,
    remotes: tuple[Endpoint, ...] = (),
    transport: Transport = Transport.UDP,
) -> Binding:
    return table.bind(
        transport, internal, Kind.SIP, owner, now=now, expires_at=expires_at, remotes=remotes
    )
