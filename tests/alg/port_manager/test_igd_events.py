"""Who may subscribe to events, for how long, and where they are sent."""

from __future__ import annotations

import pytest

from alg.port_manager.igd_events import (
    LONGEST,
    MAX_PER_HOST,
    MAX_SUBSCRIPTIONS,
    Subscription,
    Subscriptions,
    render_properties,
)

HOST = "10.0.0.20"


def subscribe(callback: str = f"<http://{HOST}:4444/events>") -> dict[str, str]:
    """Returns the headers of a new subscription."""
    return {"CALLBACK": callback, "NT": "upnp:event", "TIMEOUT": "Second-infinite"}


def begun(subscriptions: Subscriptions, host: str = HOST, now: float = 0.0) -> Subscription:
    """Subscribes."""
    made = subscriptions.begin(host, subscribe(f"<http://{host}:4444/events>"), now)
    assert isinstance(made, Subscription)
    return made


def test_a_subscription_lasts_until_it_is_not_renewed() -> None:
    subscriptions = Subscriptions()
    made = begun(subscriptions)
    assert made.url == f"http://{HOST}:4444/events"
    assert subscriptions.begin(HOST, {"SID": made.sid}, LONGEST - 1.0) is made
    assert subscriptions.standing(2 * LONGEST - 2.0) == [made]
    assert subscriptions.standing(2 * LONGEST) == []
    assert subscriptions.begin(HOST, {"SID": made.sid}, 2 * LONGEST) == 412


@pytest.mark.parametrize(
    "callback",
    [
        "",
        "<http://10.0.0.21:4444/>",
        "<http://203.0.113.10/>",
        f"<https://{HOST}:4444/>",
        f"<http://{HOST}@203.0.113.10/>",
        f"<http://{HOST}.example.com/>",
        f"<http://{HOST}:4444/\r\nX: y>",
        f"http://{HOST}:4444/",
    ],
)
def test_events_go_to_the_subscribers_own_address_only(callback: str) -> None:
    assert Subscriptions().begin(HOST, subscribe(callback), 0.0) == 412


def test_a_request_that_is_both_or_neither_is_refused() -> None:
    subscriptions = Subscriptions()
    made = begun(subscriptions)
    assert subscriptions.begin(HOST, {"SID": made.sid, **subscribe()}, 0.0) == 400
    assert subscriptions.begin(HOST, {}, 0.0) == 412
    assert subscriptions.begin(HOST, {"CALLBACK": subscribe()["CALLBACK"]}, 0.0) == 412


def test_nobody_ends_or_renews_anothers_subscription() -> None:
    subscriptions = Subscriptions()
    made = begun(subscriptions)
    assert subscriptions.end("10.0.0.21", {"SID": made.sid}) == 412
    assert subscriptions.begin("10.0.0.21", {"SID": made.sid}, 0.0) == 412
    assert subscriptions.end(HOST, {"SID": made.sid}) == 200
    assert subscriptions.end(HOST, {"SID": made.sid}) == 412


def test_subscriptions_are_few() -> None:
    subscriptions = Subscriptions()
    for _ in range(MAX_PER_HOST):
        begun(subscriptions)
    assert subscriptions.begin(HOST, subscribe(), 0.0) == 503
    for number in range(MAX_SUBSCRIPTIONS - MAX_PER_HOST):
        begun(subscriptions, f"10.0.1.{number}")
    assert subscriptions.begin("10.0.2.1", subscribe("<http://10.0.2.1/>"), 0.0) == 503
    begun(subscriptions, now=LONGEST)


def test_an_event_is_a_property_set() -> None:
    assert render_properties({"ExternalIPAddress": "203.0.113.1"}) == (
        b'<e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0"><e:property>'
        b"<ExternalIPAddress>203.0.113.1</ExternalIPAddress></e:property></e:propertyset>"
    )
