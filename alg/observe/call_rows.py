"""Calls as rows: who talks to whom, since when, by which mappings, and what those have carried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NotRequired, TypedDict

from alg.dialogs.call import owner_of
from alg.dialogs.summary import CallSummary, StreamSummary
from alg.observe.media_activity import Carried, MediaActivity, Silence
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, render_endpoint


class StreamRow(TypedDict):
    """What the command line shows of a media mapping; these names never change."""

    media: str | None
    kind: str
    internal: str
    external: str
    remote: str | None
    sent: int | None
    sent_bytes: int | None
    received: int | None
    received_bytes: int | None
    silent: str | None


CallRow = TypedDict(
    "CallRow",
    {
        "call_id": str,
        "phone": str,
        "remote": str | None,
        "state": str,
        "direction": str,
        "age": float | None,
        "up": float | None,
        "from": NotRequired[str],
        "to": NotRequired[str],
        "streams": list[StreamRow],
        "warnings": list[str],
    },
)
"""What the command line shows of a call; these names never change."""


def call_row(call: CallSummary, activity: MediaActivity, now: float, *, has_users: bool) -> CallRow:
    """Returns the row of a call; who talks is in it only if that is asked for.

    Of a call that has ended, age and time up are what they were then.
    """
    until = now if call.ended_at is None else call.ended_at
    streams, warnings = list(_streams(call, activity, now)), list(_warnings(call, activity, now))
    row: CallRow = {
        "call_id": owner_of(call.key).call_id,
        "phone": call.key.host,
        "remote": call.remote,
        "state": call.phase.value,
        "direction": "inbound" if call.origin.is_inbound else "outbound",
        "age": _seconds(call.origin.begun_at, until),
        "up": _seconds(call.answered_at, until),
        "streams": streams,
        "warnings": warnings,
    }
    if has_users:
        row["from"], row["to"] = call.origin.caller, call.origin.callee
    return row


def _streams(call: CallSummary, activity: MediaActivity, now: float) -> Iterator[StreamRow]:
    for stream in call.streams:
        silent = _silent(_silence(call, stream, activity), now)
        for binding in (*stream.rtp, *stream.rtcp):
            yield _stream_row(
                stream.media.decode("ascii", "replace") or None,
                binding,
                next(iter(call.remotes.get(binding, ())), None),
                activity.carried(binding),
                silent if binding in stream.rtp else None,
            )


def _stream_row(
    media: str | None,
    binding: Binding,
    remote: Endpoint | None,
    carried: Carried | None,
    silent: str | None,
) -> StreamRow:
    return {
        "media": media,
        "kind": binding.kind.value,
        "internal": render_endpoint(binding.internal),
        "external": render_endpoint(binding.external),
        "remote": remote and render_endpoint(remote),
        "sent": carried and carried.sent,
        "sent_bytes": carried and carried.sent_bytes,
        "received": carried and carried.received,
        "received_bytes": carried and carried.received_bytes,
        "silent": silent,
    }


def _warnings(call: CallSummary, activity: MediaActivity, now: float) -> Iterator[str]:
    """Yields a sentence for every stream with a side that is silent.

    Where both are, only if nothing else of the call is heard: streams may share a port (RFC 9143).
    """
    silences = [(each, _silence(call, each, activity)) for each in call.streams]
    is_quiet = all(_is_quiet(stream, silence) for stream, silence in silences)
    for stream, silence in silences:
        silent = _silent(silence, now)
        if silent and (silence.is_one_way or is_quiet):
            yield f"{stream.media.decode('ascii', 'replace') or 'media'}: {silent}"


def _silence(call: CallSummary, stream: StreamSummary, activity: MediaActivity) -> Silence:
    """Returns who is silent; not both sides of two phones here, whose media stays inside."""
    silence = activity.silence(call.key, stream)
    remotes = [(b.transport, remote) for b in stream.rtp for remote in call.remotes.get(b, ())]
    if None in silence or not any(map(activity.is_phone, remotes)):
        return silence
    return Silence()


def _is_quiet(stream: StreamSummary, silence: Silence) -> bool:
    """Whether nothing is heard in a stream, or nothing is listened to."""
    return silence.is_one_way is False and (silence.phone is not None or not stream.is_two_way)


def _silent(silence: Silence, now: float) -> str | None:
    """Renders "no media from remote since 12 s", None where both sides are heard."""
    phone, remote = silence
    if phone is None and remote is None:
        return None
    who = "phone" if remote is None else "remote" if phone is None else "either side"
    since = max(each for each in silence if each is not None)
    return f"no media from {who} since {max(0, int(now - since))} s"


def _seconds(since: float | None, until: float) -> float | None:
    return None if since is None else round(max(0.0, until - since), 1)
