"""What of a message must be left as it is, although an address of the phone stands in it.

A digest over the body (RFC 7616 qop=auth-int), S/MIME and RFC 4474 Identity (whose value is a
quoted string; it covers Contact and body) break when what they sign is changed.
"""

from __future__ import annotations

import re

from alg.sdp.multipart import is_signed
from alg.sip.header_line import CONTENT_ENCODING, CONTENT_TYPE, IDENTITY
from alg.sip.message import SipMessage
from alg.verdict import Reason

# The methods that carry offers and answers; a description anywhere else describes no media of ours
# (OPTIONS lists capabilities, MESSAGE and PUBLISH carry documents).
_MEDIA_METHODS = frozenset((b"INVITE", b"ACK", b"PRACK", b"UPDATE", b"INFO"))

_AUTH_INT = re.compile(
    rb"\n(?:proxy-)?auth(?:orization|entication-info)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*"
    rb"qop[ \t]*=[ \t]*\"?auth-int\b",
    re.IGNORECASE,
)
NOTHING: frozenset[str] = frozenset()
BODY: frozenset[str] = frozenset(("body",))
CONTACT: frozenset[str] = frozenset(("contact",))
_BODY_AND_CONTACT = BODY | CONTACT
_SIGNED, _REWRITTEN = Reason.SIGNED, Reason.REWRITTEN


def parts_left(message: SipMessage) -> tuple[frozenset[str], Reason]:
    """Returns what must not be edited, and the reason if that is worth counting."""
    identity = message.single(IDENTITY)
    if identity is not None and identity.value.startswith(b'"'):
        return _BODY_AND_CONTACT, _SIGNED
    end = message.headers_end
    if end == message.body_end:
        return NOTHING, _REWRITTEN
    if message.method not in _MEDIA_METHODS:
        return BODY, _REWRITTEN
    data, content_type = message.data, message.single(CONTENT_TYPE)
    if content_type is not None and is_signed(content_type.value):
        return BODY, _SIGNED
    if data.find(b"auth-int", 0, end) >= 0 and _AUTH_INT.search(data, 0, end):
        return BODY, _SIGNED
    encoding = message.single(CONTENT_ENCODING)
    if encoding is not None and encoding.value.lower() not in (b"", b"identity"):
        return BODY, Reason.ENCODED_BODY
    return NOTHING, _REWRITTEN
