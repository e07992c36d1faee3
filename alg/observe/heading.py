"""What a message says of itself: method, status, Call-ID and CSeq, for whoever shows or counts it.

Read leniently, because a message that the gateway could not parse is shown too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from alg.sip.grammar import TOKEN

# Request-Line or Status-Line, of any version of SIP.
_START = re.compile(
    rb"[\r\n]*+(?:SIP/[0-9.]++[ \t]++([1-6][0-9][0-9])"
    rb"|(" + TOKEN + rb"++)[ \t]++[^\r\n]*?[ \t]SIP/[0-9.]++)",
    re.IGNORECASE,
)
_FIELD = re.compile(
    rb"\n(?:(?:call-id|i)[ \t]*+:[ \t]*+([^\r\n]*+)"
    rb"|cseq[ \t]*+:[ \t]*+([0-9]{1,10})[ \t]++(" + TOKEN + rb"++)|(\r?\n))",
    re.IGNORECASE,
)


class Heading(NamedTuple):
    """What stands at the top of a message; `method` is "" where it is not SIP.

    `method` is the CSeq's in a response, `status` 0 in a request; `cseq` is None and `call_id` ""
    where they are missing.
    """

    method: str = ""
    status: int = 0
    call_id: str = ""
    cseq: int | None = None


NOT_SIP = Heading()


def read_heading(payload: bytes) -> Heading:
    """Returns what a message says of itself; its text may hold anything."""
    start = _START.match(payload)
    if start is None:
        return NOT_SIP
    call_id, cseq, method = b"", None, start[2] or b""
    for field in _FIELD.finditer(payload, start.end()):
        if field[4]:
            break
        if field[1]:
            call_id = call_id or field[1].rstrip()
        elif field[2]:
            cseq, method = int(field[2]), method or field[3]
    return Heading(
        _text(method),
        int(start[1] or 0),
        _text(call_id),
        cseq,
    )


def _text(value: bytes) -> str:
    """Decodes as the rows of mappings do, so that both name a call alike."""
    return value.decode("utf-8", "replace")
