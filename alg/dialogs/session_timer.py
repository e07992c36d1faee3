"""How long a confirmed call lives without a word: its session timer, or the configured time.

The 2xx to an INVITE or UPDATE says in Session-Expires how long the session lasts unless it is
refreshed (RFC 4028 §7, §9). Whoever does not refresh sends BYE at its end, so what is kept a little
longer lets that BYE through.
"""

from __future__ import annotations

from alg.sip.message import SipMessage

STEP = 30.0
SLACK = 32.0
LONGEST = 604800.0
SHORTEST = 90.0


def session_interval(message: SipMessage) -> float | None:
    """Returns the session interval of a 2xx in seconds, None where there is no session timer.

    It is at least 90 (RFC 4028 §4), and taken to be a week at most.
    """
    seconds = message.seconds("session-expires")
    return None if seconds is None else min(max(float(seconds), SHORTEST), LONGEST)


def session_deadline(interval: float | None, idle_timeout: float, now: float) -> float:
    """Returns until when a call is kept, in steps, so that few messages move it."""
    kept = idle_timeout if interval is None else interval + SLACK
    return (now // STEP + 1) * STEP + kept
