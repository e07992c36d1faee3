"""How a signalling binding is let go: not before the last transaction on it is over.

The message that ends a call or a subscription has an answer, and may be sent again if that is lost
(RFC 3261 §17): both must find the mapping that they came by.
"""

from __future__ import annotations

from nat_table.binding import Binding, Owner
from nat_table.table import NatTable

FLOW = Owner("flow")
"""Who keeps a mapping for plain signalling traffic, whatever was signalled."""


def let_linger(
    table: NatTable, binding: Binding, owner: Owner, transaction_timeout: float, now: float
) -> None:
    """Closes the owner's pinhole, and keeps the binding for the time of a transaction at least."""
    transport, internal, kind = binding.transport, binding.internal, binding.kind
    standing = table.look_up_internal(transport, internal)
    if standing is not None and standing.external == binding.external:
        until = now + transaction_timeout
        table.bind(transport, internal, kind, FLOW, now=now, expires_at=until)
        table.close(binding, owner, now)
