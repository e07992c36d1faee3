"""What becomes of calls when the gateway on a router is upgraded, restarted, killed or hung."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.agents import wait_until
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Site
from tests.netns.calls import check_audio
from tests.package.router import CONFIG, UNIT, Router

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600), pytest.mark.xdist_group("machine")]


def check_call_outlives(router: Router, site: Site, disaster: Callable[[], object]) -> None:
    """Checks that a call goes on through a disaster, which ends when the gateway serves again.

    No packet of audio is lost, the mappings are what they were, and phone and server can change the
    call, make another one, and end both.
    """
    phone, server = site.phone_1, site.server
    for each in (phone, site.phone_2):
        site.register(each)
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    before = router.mappings()

    disaster()
    assert router.mappings() == before
    check_audio(talk)

    server.send("OPTIONS", call=sent)
    asked = phone.expect("OPTIONS", call=sent)
    phone.reply(asked, 200)
    server.expect(200, call=sent)
    called, answer = site.call_in(site.phone_2, sdp=server.offer(media=SERVER_MEDIA_2))
    check_audio(site.talk(site.phone_2, answer, SERVER_MEDIA_2))
    site.hang_up(site.phone_2, server, called)
    site.hang_up(phone, server, sent)
    assert router.has_no_media()
    assert set(router.mappings()) == {str(each.endpoint) for each in (phone, site.phone_2)}
    assert phone.discarded == []


def test_an_upgrade_cuts_no_call(router: Router, site: Site, later_package: Path) -> None:
    former = router.pid

    def upgrade() -> None:
        router.install(later_package)
        assert router.replaces(former)

    check_call_outlives(router, site, upgrade)
    version = router.run("dpkg-query", "--show", "--showformat", "${Version}", "sipnat")
    assert version.endswith("+later")


def test_an_upgrade_starts_nothing_that_was_stopped(router: Router, later_package: Path) -> None:
    router.systemctl("disable", "--now")
    router.install(later_package)
    assert not router.is_active
    assert router.show(UNIT, "UnitFileState") == "disabled"


def test_a_restart_cuts_no_call(router: Router, site: Site) -> None:
    check_call_outlives(router, site, lambda: router.systemctl("restart"))


def test_after_kill_9_systemd_starts_it_again_and_no_call_is_cut(
    router: Router, site: Site
) -> None:
    former = router.pid

    def kill() -> None:
        router.run("kill", "-KILL", str(former))
        assert router.replaces(former)

    check_call_outlives(router, site, kill)


def test_a_hung_gateway_is_replaced_and_no_call_is_cut(router: Router, site: Site) -> None:
    former = router.pid

    def hang() -> None:
        router.run("kill", "-STOP", str(former))
        assert router.replaces(former, timeout=60.0)

    check_call_outlives(router, site, hang)
    assert any("watchdog" in line.lower() for line in router.journal(UNIT))


def test_a_reload_reads_the_configuration_again_and_cuts_no_call(
    router: Router, site: Site
) -> None:
    former = router.pid

    def reload() -> None:
        path = router.path(CONFIG)
        path.write_text(f"max_calls_per_host = 7\n{path.read_text()}")
        router.systemctl("reload")
        assert wait_until(
            lambda: any("max_calls_per_host" in line for line in router.journal(UNIT)), 5.0
        )
        assert router.pid == former

    check_call_outlives(router, site, reload)
