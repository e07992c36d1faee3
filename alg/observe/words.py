"""The words in which an administrator is told what became of a message, and what it meant."""

from __future__ import annotations

from collections.abc import Iterator

from alg.observe.entry import Entry, MappingEntry
from alg.observe.printable import printable

LONGEST_TEXT = 120
"""Characters that are shown of one text that strangers wrote."""

REASONS = {
    "nothing-to-change": "nothing in it names an address of ours",
    "not-translated": "it does not cross the NAT",
    "hands-off": "its server is left to traverse the NAT by itself (hands_off)",
    "keepalive": "it is a keepalive",
    "not-sip": "it is not SIP",
    "not-udp": "it is not UDP",
    "truncated": "it is not whole",
    "too-large": "it is larger than may be changed",
    "malformed": "it breaks the grammar of SIP, and guessing would damage it",
    "malformed-sdp": "its session description breaks the grammar of SDP",
    "signed": "it is signed, and a change would break the signature",
    "encoded-body": "its body is encrypted or compressed",
    "denied-port": "it names a port that is never opened",
    "own-address": "it names an address of the router",
    "too-complex": "it names more than the gateway maps for one message",
    "no-external-address": "there is no external address",
    "no-free-port": "no external port is free",
    "quota": "the phone has as much as it may have",
    "rate": "the phone asks for new mappings too fast",
    "commit-failed": "the kernel refused a mapping, so it must come again",
    "upstream": "the gateway above has not granted the mapping yet",
    "draining": "the gateway takes no new calls now",
    "overload": "more comes than the gateway can serve, and it begins something new",
    "error": "there was an error in sipnat, which its log shows",
}
_VERDICTS = {"unchanged": "passed as it came", "dropped": "dropped", "held": "held back"}
_PHRASES = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    407: "Proxy Auth Required",
    408: "Request Timeout",
    415: "Unsupported Media",
    480: "Unavailable",
    481: "No Such Call",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Error",
    503: "Service Unavailable",
    603: "Decline",
}
_CHANGES = {
    "expired": "mappings expire",
    "moved": "mappings move to another external address",
    "dropped": "mappings are dropped by the administrator",
    "requested": "a client asks for mappings",
}


def shown(text: str) -> str:
    """Returns what may be shown of a stranger's text, cut where it goes on and on."""
    safe = printable(text[: LONGEST_TEXT + 1])
    return safe if len(safe) <= LONGEST_TEXT else safe[: LONGEST_TEXT - 1] + "~"


def message_name(entry: Entry) -> str:
    """Names a message: "INVITE", "200 OK", "488 Not Acceptable Here"."""
    if entry.status:
        return f"{entry.status} {_PHRASES.get(entry.status, '')}".strip()
    return shown(entry.method or "not SIP")


def change_name(entry: Entry) -> str:
    """Names what has changed without a message."""
    return _CHANGES.get(entry.what, shown(entry.what))


def verdict_words(entry: Entry) -> str:
    """Says what became of a message that was not rewritten, and why."""
    why = REASONS.get(entry.reason, shown(entry.reason))
    detail = f" ({shown(entry.detail)})" if entry.detail else ""
    return f"{_VERDICTS.get(entry.verdict, shown(entry.verdict))}: {why}{detail}"


def meaning(entry: Entry) -> Iterator[str]:
    """Yields what a message meant for the call or registration, a sentence each."""
    method, status = entry.method, entry.status
    for step in entry.steps:
        if step == "rolled back":
            request = "re-INVITE" if method == "INVITE" else shown(method or "request")
            yield f"the {request} was refused ({status}): its offer is rolled back"
        elif step == "refused":
            yield f"the call was refused ({status})"
        else:
            yield _STEPS.get(step, shown(step))
    if status in (401, 407):
        yield "the server asks for credentials"
    elif not status and method in _REQUESTS:
        yield _REQUESTS[method]


_STEPS = {
    "offer": "it offers media",
    "answer": "it answers the offer of media",
    "ringing": "the call rings",
    "answered": "the call is answered",
    "ended": "the call has ended",
    "registered": "the phone is registered",
    "unregistered": "the phone is no longer registered",
}
_REQUESTS = {"BYE": "one side hangs up", "CANCEL": "the call is given up before it is answered"}


def mapping_words(mapping: MappingEntry) -> str:
    """Names a mapping."""
    kind, transport = shown(mapping.kind), shown(mapping.transport)
    internal, external = shown(mapping.internal), shown(mapping.external)
    if internal == external:
        return f"{kind}/{transport} {internal}"
    return f"{kind}/{transport} {internal} <-> {external}"


def edit_words(entry: Entry, arrow: str = "->") -> Iterator[tuple[str, str]]:
    """Yields the fields that were edited alike, and what was done to them."""
    for (old, new), fields in entry.edited().items():
        was, becomes = shown(old), shown(new)
        yield (
            ", ".join(map(shown, fields)),
            f"{was} {arrow} {becomes}" if was and becomes else becomes or f"no {was}",
        )
