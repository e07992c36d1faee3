"""Who is told when the external address changes (UPnP 2.0 §4, GENA).

A subscriber is told at its own address only: one that names another host would have the gateway
send requests wherever it likes (CVE-2020-12695).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from aiohttp import ClientError, ClientSession, ClientTimeout

MAX_SUBSCRIPTIONS = 64
MAX_PER_HOST = 4
LONGEST = 1800
_NOTIFY_TIMEOUT = 5.0
_CALLBACK = re.compile(r"<(http://([0-9.]+)(?::[0-9]{1,5})?(?:/[!-;=?-~]*)?)>")
_NAMESPACE = "urn:schemas-upnp-org:event-1-0"


@dataclass(eq=False, slots=True)
class Subscription:
    """One subscriber's: known by `sid`, told at `url`, with events numbered from 0."""

    sid: str
    host: str
    url: str
    expires_at: float
    sequence: int = 0


class Subscriptions:
    """The subscribers of one service."""

    def __init__(self) -> None:
        self._standing: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, host: str, headers: Mapping[str, str], now: float) -> Subscription | int:
        """Makes or renews a subscription, or returns the HTTP status that refuses it (§4.1.2)."""
        self._expire(now)
        is_renewal, names_who = "SID" in headers, "CALLBACK" in headers or "NT" in headers
        if is_renewal and names_who:
            return 400
        if is_renewal:
            subscription = self._of(host, headers)
            if subscription is not None:
                subscription.expires_at = now + LONGEST
            return subscription or 412
        callback = _CALLBACK.match(headers.get("CALLBACK", ""))
        if headers.get("NT") != "upnp:event" or callback is None or callback[2] != host:
            return 412
        own = sum(each.host == host for each in self._standing.values())
        if own >= MAX_PER_HOST or len(self._standing) >= MAX_SUBSCRIPTIONS:
            return 503
        subscription = Subscription(f"uuid:{uuid.uuid4()}", host, callback[1], now + LONGEST)
        self._standing[subscription.sid] = subscription
        return subscription

    def end(self, host: str, headers: Mapping[str, str]) -> int:
        """Ends a host's subscription; returns the HTTP status that says so."""
        subscription = self._of(host, headers)
        if subscription is None:
            return 412
        del self._standing[subscription.sid]
        return 200

    def tell(self, subscription: Subscription, variables: Mapping[str, str]) -> None:
        """Sends a subscriber the variables, as soon as it takes them or never."""
        task = asyncio.get_running_loop().create_task(self._send(subscription, variables))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def standing(self, now: float) -> list[Subscription]:
        """Returns the subscriptions that have not expired."""
        self._expire(now)
        return list(self._standing.values())

    def close(self) -> None:
        """Ends all subscriptions."""
        self._standing.clear()
        for task in self._tasks:
            task.cancel()

    def _of(self, host: str, headers: Mapping[str, str]) -> Subscription | None:
        subscription = self._standing.get(headers.get("SID", ""))
        return subscription if subscription is not None and subscription.host == host else None

    def _expire(self, now: float) -> None:
        self._standing = {k: each for k, each in self._standing.items() if each.expires_at > now}

    async def _send(self, subscription: Subscription, variables: Mapping[str, str]) -> None:
        headers = {
            "CONTENT-TYPE": 'text/xml; charset="utf-8"',
            "NT": "upnp:event",
            "NTS": "upnp:propchange",
            "SID": subscription.sid,
            "SEQ": str(subscription.sequence),
        }
        # After the highest number comes 1: 0 is for the first event alone (§4.3).
        subscription.sequence = subscription.sequence % 0xFFFFFFFF + 1
        with contextlib.suppress(ClientError, OSError, TimeoutError, ValueError):
            async with (
                ClientSession(timeout=ClientTimeout(total=_NOTIFY_TIMEOUT)) as session,
                session.request(
                    "NOTIFY",
                    subscription.url,
                    headers=headers,
                    data=render_properties(variables),
                    allow_redirects=False,
                ),
            ):
                pass


def render_properties(variables: Mapping[str, str]) -> bytes:
    """Renders the body of an event."""
    top = ElementTree.Element("e:propertyset", {"xmlns:e": _NAMESPACE})
    for name, value in variables.items():
        ElementTree.SubElement(ElementTree.SubElement(top, "e:property"), name).text = value
    return ElementTree.tostring(top, encoding="unicode").encode()
