"""Compiled patterns, each under the RFC 3261 §25.1 rule it stands for.

They accept what phones really send (bare LF, folded lines, white space wherever LWS may stand) and
nothing that changes meaning: a message that does not match is left alone, never mended. Repeats of
one character are possessive and the repeated groups unambiguous, so that hostile input costs linear
time (possessive *groups* are broken in CPython 3.11.2, which Debian 12 ships).
"""

from __future__ import annotations

import re

# token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")
TOKEN = rb"[A-Za-z0-9\-.!%*_+`'~]"


def _compile(pattern: bytes, flags: int = 0) -> re.Pattern[bytes]:
    """Compiles with white space spelled out: as a category it would be another test each octet."""
    return re.compile(pattern.replace(rb"\s", rb" \t\r\n\f\v"), flags)


# LWS = [*WSP CRLF] 1*WSP; a field value holds line breaks only where it is folded
LWS = rb"[ \t\r\n]*+"

# quoted-string = SWS DQUOTE *(qdtext / quoted-pair) DQUOTE
QUOTED = rb'"(?:[^"\\]|\\.)*"'

# Request-Line = Method SP Request-URI SP SIP-Version CRLF
# Status-Line = SIP-Version SP Status-Code SP Reason-Phrase CRLF; both without the line break
START_LINE = _compile(
    rb"(?:(" + TOKEN + rb"++) ([^\s<>\"]++) SIP/2\.0"
    rb"|SIP/2\.0 ([1-6][0-9][0-9])(?: [^\r\n]*+)?)",
    re.IGNORECASE,
)

LINE_BREAK = re.compile(rb"\r?\n")

# The same of most requests, which is found faster.
REQUEST_LINE = _compile(rb"([A-Z]++) ([^\s<>\"]++) SIP/2\.0")

# What a datagram must begin with to be SIP at all; the version may be one we do not speak.
SIP_PREFIX = re.compile(
    rb"SIP/[0-9]|" + TOKEN + rb"++[ \t]++[^\r\n]*?[ \t]SIP/[0-9]", re.IGNORECASE
)

# *(message-header) CRLF: name, HCOLON, value, and folded lines that begin with white space.
# A datagram may end with its last field: there is no body, and no doubt where the message ends.
HEADER_BLOCK = re.compile(
    rb"(?:" + TOKEN + rb"++[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*)*(?:\r?\n|\Z)"
)

# One field of such a block, with its folded lines and its line end.
FIELDS = re.compile(rb"[^\r\n][^\n]*+\n(?:[ \t][^\n]*+\n)*")

# Its name, and its value without the white space before it.
FIELD = re.compile(rb"(" + TOKEN + rb"++)[ \t]*+:[ \t]*+([^\r\n]*+(?:\r?\n[ \t]++[^\r\n]*+)*)")

# via-parm = sent-protocol LWS sent-by *( SEMI via-params ); several are joined by commas
VIA = _compile(
    LWS + rb"SIP" + LWS + rb"/" + LWS + rb"2\.0" + LWS + rb"/" + LWS + rb"(" + TOKEN + rb"++)"
    rb"[ \t\r\n]++(\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9_.\-]++)"
    rb"(?:" + LWS + rb":" + LWS + rb"([0-9]{1,5}))?"
    rb"((?:"
    + LWS
    + rb";"
    + LWS
    + TOKEN
    + rb"++(?:"
    + LWS
    + rb"="
    + LWS
    + rb"(?:"
    + QUOTED
    + rb"|[^\s;,\"]++))?)*)"
    + LWS
    + rb"(,|\Z)",
    re.IGNORECASE | re.DOTALL,
)

# via-branch = "branch" EQUAL token
BRANCH = _compile(rb";" + LWS + rb"branch" + LWS + rb"=" + LWS + rb"([^\s;,]++)", re.IGNORECASE)

# name-addr = [ display-name ] LAQUOT addr-spec RAQUOT, or addr-spec; then *( SEMI param ).
# Without brackets whatever follows a semicolon belongs to the field, and "?" and "," may not stand.
# A parameter may be empty, for phones that end a value with a semicolon.
NAME_ADDR = _compile(
    LWS + rb"(?:(?:" + QUOTED + rb"|[^\"<>,;]++)*<([^<>\s\"]++)>|([^\s<>,;?\"]++))"
    rb"((?:"
    + LWS
    + rb";"
    + LWS
    + rb"(?:[^\s;,=\"<>]++(?:"
    + LWS
    + rb"="
    + LWS
    + rb"(?:"
    + QUOTED
    + rb"|<[^<>\"]*+>|[^\s;,\"<>]++)?)?)?)*)"
    + LWS
    + rb"(,|\Z)",
    re.DOTALL,
)

# tag-param = "tag" EQUAL token
TAG = _compile(rb";" + LWS + rb"tag" + LWS + rb"=" + LWS + rb"([^\s;,\"]++)", re.IGNORECASE)

# What may follow ";branch=" or ";tag=" where nothing is quoted, folded or spaced out.
NEW_PARAM = re.compile(rb"(" + TOKEN + rb"++)(?:;" + TOKEN + rb"++(?:=" + TOKEN + rb"++)?)*")

# c-p-expires = "expires" EQUAL delta-seconds
EXPIRES_PARAM = re.compile(
    rb";" + LWS + rb"expires" + LWS + rb"=" + LWS + rb"\"?([0-9]{1,10})", re.IGNORECASE
)

# SIP-URI = "sip:" [ userinfo ] hostport uri-parameters [ headers ]
SIP_URI = _compile(
    rb"(sips?):(?:[^@<>\s]*+@)?(\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9_.\-]++)(?::([0-9]{1,5}))?"
    rb"((?:;[^;?\s]*+)*)(\?[^\s]*+)?",
    re.IGNORECASE,
)

# transport-param = "transport=" ( "udp" / "tcp" / "sctp" / "tls" / other-transport )
TRANSPORT_PARAM = _compile(rb";transport=([^;?\s]++)", re.IGNORECASE)

# CSeq = 1*DIGIT LWS Method
SEQUENCE = re.compile(LWS + rb"([0-9]{1,10})[ \t\r\n]++(" + TOKEN + rb"++)" + LWS + rb"\Z")

# SIP-date = rfc1123-date = wkday "," SP date1 SP time SP "GMT"
SIP_DATE = re.compile(
    LWS + rb"[A-Za-z]{3}, [0-9 ]{2} [A-Za-z]{3} [0-9]{4} [0-9:]{8} GMT" + LWS + rb"\Z"
)

_QUOTED = re.compile(QUOTED, re.DOTALL)


def search_param(
    pattern: re.Pattern[bytes], data: bytes, start: int, end: int
) -> re.Match[bytes] | None:
    """Finds a parameter in data[start:end], never inside another one's quoted string."""
    if start == end:
        return None
    if data.find(b'"', start, end) < 0:
        return pattern.search(data, start, end)
    return pattern.search(_QUOTED.sub(_without_semicolons, data[start:end]))


def _without_semicolons(quoted: re.Match[bytes]) -> bytes:
    return quoted[0].replace(b";", b"")
