"""The status page in a real browser: what it shows of live calls, and hostile input in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL_INTERFACE, PHONE_1, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.browser import LISTEN, Browser

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(120),
    pytest.mark.configured(http={"listen": LISTEN, "users": True}),
]

MARKUP = "<img/src=x/onerror=window.harmed=1><script>window.harmed=2</script>"
TRICKS = "\u202egnp.exe\u2066\u200b\u0085"
USER = "'onerror='window.harmed=6'"
HOSTILE_CALL_IDS = {
    "markup": f"{MARKUP}\"'&amp;{{x}}@{PHONE_1}",
    "attribute": f'"onload="window.harmed=3"/><a/href="javascript:window.harmed=4">@{PHONE_1}',
    "tricks": f"x{TRICKS}@{PHONE_1}",
    "long": "L" * 60_000,
}


@pytest.fixture
def browser(site: Site, gateway: Gateway) -> Iterator[Browser]:
    with Browser(site.network.router) as browser:
        yield browser


def send_hostile_invite(site: Site, port: int, call_id: str) -> None:
    """Sends an INVITE whose every text is hostile, from a phone that waits for no answer."""
    body = (
        f"v=0\r\no=- 1 1 IN IP4 {PHONE_1}\r\ns={MARKUP}\r\nc=IN IP4 {PHONE_1}\r\nt=0 0\r\n"
        f"m=audio {port + 2} RTP/AVP 0\r\n"
    )
    fields = (
        f"Via: SIP/2.0/UDP {PHONE_1}:{port};branch=z9hG4bK{secrets.token_hex(8)};rport\r\n"
        f'From: "{MARKUP}{TRICKS}\x1b]0;harmed\x07" <sip:{USER}{TRICKS}@{SERVER}>;tag=1\r\n'
        f"To: <sip:%3Cscript%3Ewindow.harmed=5%3C/script%3E@{SERVER}>\r\n"
        f"Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@{PHONE_1}:{port}>\r\n"
        f"User-Agent: {MARKUP}\x1b[2J{TRICKS}\r\nSubject: {MARKUP}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    message = f"INVITE sip:x@{SERVER} SIP/2.0\r\nMax-Forwards: 70\r\n{fields}{body}"
    with site.network.lan.udp_socket(PHONE_1, port) as phone:
        phone.sendto(message.encode(), (SERVER, 5060))


def test_a_call_its_media_and_its_ladder_are_shown(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    site.register(site.phone_1)
    browser.open("/")
    browser.wait(lambda: "No calls at the moment" in browser.text("#view"))
    sent, arrived = site.call_out(site.phone_1)
    conversation = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
    browser.wait(lambda: sent.call_id in browser.text("#view"))
    shown = browser.text("#view")
    for text in ("up", PHONE_1, SERVER, "sip:phone1@", "audio", "10.0.0.20:4000", "→", "←"):
        assert text in shown
    browser.click("#view button")
    browser.wait(lambda: browser.run("document.getElementById('ladder-picture').naturalWidth") > 0)
    conversation.far.stop()
    browser.wait(lambda: "no media from remote since" in browser.text("#view .warning"))
    assert browser.count("#view .silent") == 1
    conversation.stop()
    site.hang_up(site.phone_1, site.server, sent)
    browser.wait(lambda: "No calls at the moment" in browser.text("#view"))
    assert browser.complaints() == []
    browser.screenshot(str(tmp_path / "page.png"))


def test_every_view_has_what_the_command_line_shows(site: Site, browser: Browser) -> None:
    site.register(site.phone_1)
    site.register(site.phone_2)
    expected = {
        "mappings": ("10.0.0.20:5060", "203.0.113.1:5060", "registered"),
        "registrations": (PHONE_1, "203.0.113.10:5060"),
        "reasons": ("rewritten", "not-sip", "refused-signalling"),
        "health": ("max_mappings_per_host", "conntrack", "version", "port", "known by"),
    }
    for view, texts in expected.items():
        browser.open(f"/#{view}")
        for text in texts:
            browser.wait(lambda text=text: text in browser.text("#view"))  # type: ignore[misc]
    assert "in service" in browser.text("#state")
    assert browser.complaints() == []


def test_mappings_are_filtered_and_paged(site: Site, browser: Browser) -> None:
    with site.network.lan.udp_socket(PHONE_1, 5070) as phone:
        for number in range(8):
            lines = "".join(
                f"m=audio {20000 + 40 * number + 2 * i} RTP/AVP 0\r\n" for i in range(20)
            )
            body = (
                f"v=0\r\no=- 1 1 IN IP4 {PHONE_1}\r\ns=-\r\nc=IN IP4 {PHONE_1}\r\nt=0 0\r\n{lines}"
            )
            phone.sendto(
                (
                    f"INVITE sip:x@{SERVER} SIP/2.0\r\n"
                    f"Via: SIP/2.0/UDP {PHONE_1}:5070;branch=z9hG4bKpage{number}\r\n"
                    f"From: <sip:a@{SERVER}>;tag=1\r\nTo: <sip:x@{SERVER}>\r\n"
                    f"Call-ID: page-{number}\r\nCSeq: 1 INVITE\r\n"
                    f"Contact: <sip:a@{PHONE_1}:5070>\r\n"
                    f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                ).encode(),
                (SERVER, 5060),
            )
    browser.open("/#mappings")
    browser.wait(lambda: browser.count("#view tbody tr") == 100)
    assert browser.text("#place") == "1–100"
    browser.click("#later")
    browser.wait(lambda: browser.text("#place") == "101–200")
    browser.click("#later")
    browser.click("#later")
    browser.wait(lambda: browser.text("#place") == "301–321")
    assert not browser.find("#later").is_enabled()
    browser.find("[name=call_id]").send_keys("page-3")
    browser.wait(lambda: browser.count("#view tbody tr") == 41)
    browser.find("[name=internal]").send_keys("10.0.0.21")
    browser.wait(lambda: "No mappings" in browser.text("#view"))


@pytest.mark.parametrize("what", HOSTILE_CALL_IDS)
def test_hostile_text_is_text(site: Site, browser: Browser, what: str) -> None:
    send_hostile_invite(site, 5070, HOSTILE_CALL_IDS[what])
    browser.open("/#calls")
    browser.wait(lambda: browser.count("#view tbody tr") == 1)
    browser.click("#view button")
    for view in ("mappings", "reasons", "registrations", "health", "calls"):
        browser.open(f"/#{view}")
        browser.wait(lambda: browser.count("#view tbody tr") > 0 or "No " in browser.text("#view"))
        markup = browser.run("document.getElementById('view').innerHTML")
        assert "\u202e" not in markup and "\x1b" not in markup and len(markup) < 100_000
    assert browser.count("#view script") == browser.count("#view img") == 0
    assert browser.count("#view a") == 0
    assert browser.run("window.harmed") is None
    assert browser.run("document.title") == "sipnat"
    assert not [line for line in browser.complaints() if "ladder.svg" not in line]


def test_the_picture_by_itself_is_harmless(site: Site, browser: Browser) -> None:
    call_id = HOSTILE_CALL_IDS["markup"]
    send_hostile_invite(site, 5070, call_id)
    browser.open("/#calls")
    browser.wait(lambda: browser.count("#view tbody tr") == 1)
    browser.click("#view button")
    browser.wait(lambda: browser.run("document.getElementById('ladder-picture').naturalWidth") > 0)
    browser.open(browser.run("document.getElementById('ladder-link').getAttribute('href')"))
    assert browser.run("document.documentElement.tagName") == "svg"
    assert browser.count("script") == browser.count("img") == browser.count("a") == 0
    assert browser.run("window.harmed") is None


def test_it_fits_a_narrow_screen_light_or_dark(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    browser.narrow(360, 740)
    backgrounds = set()
    for scheme in ("light", "dark"):
        browser.use_scheme(scheme)
        for view in ("calls", "mappings", "registrations", "reasons", "health"):
            browser.open(f"/#{view}")
            browser.wait(lambda: browser.count("#view tr") > 0)
            assert browser.run("document.documentElement.scrollWidth") <= 360, view
            assert not browser.run(
                "[...document.querySelectorAll('.wide')].some((e) => e.scrollWidth > e.clientWidth)"
            ), view
        browser.screenshot(str(tmp_path / f"{scheme}.png"))
        backgrounds.add(browser.run("getComputedStyle(document.body.parentNode).backgroundColor"))
    assert len(backgrounds) == 2


def test_an_interface_that_carries_nothing_is_named(
    network: Network, gateway: Gateway, browser: Browser
) -> None:
    browser.open("/")
    browser.wait(lambda: "in service" in browser.text("#state"))
    network.wan.run("ip", "link", "set", "eth0", "down")
    fault = f"interface {EXTERNAL_INTERFACE} has no carrier"
    browser.wait(lambda: browser.text("#state") == fault)
    browser.open("/#health")
    browser.wait(lambda: fault in browser.text("#view"))


def test_a_gateway_that_goes_away_is_said_so(
    site: Site, gateway: Gateway, browser: Browser
) -> None:
    browser.open("/")
    browser.wait(lambda: "in service" in browser.text("#state"))
    gateway.stop()
    browser.wait(lambda: "no answer" in browser.text("#state"))
    assert "not up to date" in browser.text("#note")
    gateway.start()
    browser.wait(lambda: "in service" in browser.text("#state"))
    assert not browser.find("#note").is_displayed()
