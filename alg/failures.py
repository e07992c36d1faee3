"""What makes a message pass as it came, and the word for it."""

from __future__ import annotations

from typing import Final

from alg.mappings import MalformedSdp, TooComplex
from alg.outbound import DeniedPort, OwnAddress
from alg.sip.message import Malformed
from alg.verdict import Reason
from nat_table.refusal import NoExternalAddress, NoFreePort, QuotaExceeded, RateExceeded

_REASONS: Final[dict[type[Exception], Reason]] = {
    Malformed: Reason.MALFORMED,
    MalformedSdp: Reason.MALFORMED_SDP,
    TooComplex: Reason.TOO_COMPLEX,
    DeniedPort: Reason.DENIED_PORT,
    OwnAddress: Reason.OWN_ADDRESS,
    NoExternalAddress: Reason.NO_EXTERNAL_ADDRESS,
    NoFreePort: Reason.NO_FREE_PORT,
    QuotaExceeded: Reason.QUOTA,
    RateExceeded: Reason.RATE,
}
FAILURES: Final = tuple(_REASONS)


def reason_of(error: Exception) -> Reason:
    """Returns the word for what makes a message pass as it came, the most special one."""
    return next(_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS)
