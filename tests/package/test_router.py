"""What the package does on a router: its first installation, the boot, its removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.machine import BOOT_ID
from tests.lab.network import Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import check_audio
from tests.package.router import CONFIG, UNIT, Router

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600), pytest.mark.xdist_group("machine")]


def test_a_fresh_machine_is_set_up_by_three_commands_and_calls_go_through(
    bare: Router, package: Path, site: Site
) -> None:
    before = bare.kernel()
    bare.install(package)
    assert not bare.is_active, "it must not start before there is a configuration of this machine"
    assert bare.kernel() == before
    bare.set_up()
    assert bare.is_active
    assert "ready" in bare.journal(UNIT)

    site.register(site.phone_1)
    sent, offer = site.call_out(site.phone_1)
    check_audio(site.talk(site.phone_1, offer, SERVER_MEDIA_1))
    site.hang_up(site.phone_1, site.server, sent)
    assert bare.has_no_media()
    assert set(bare.mappings()) == {str(site.phone_1.endpoint)}
    assert bare.complaints() == []


def test_a_reboot_brings_it_back_by_itself(router: Router, network: Network, site: Site) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    assert router.mappings("rtp")
    # The service has a /proc of its own, which would show the boot of the lab's host.
    drop_in = router.path("/etc/systemd/system/sipnat.service.d/boot.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nBindReadOnlyPaths={BOOT_ID}:/proc/sys/kernel/random/boot_id\n")
    router.power_off()
    site.close()
    network.close()

    # Its kernel begins anew, as that of a machine does which was switched off.
    with Network() as network, Router(network, router.layers, router.disk) as router:
        router.start()
        assert router.is_active
        assert router.mappings() == {}, "what the machine knew before it was switched off is over"
        with Site(network) as site:
            site.register(site.phone_1)
            sent, offer = site.call_out(site.phone_1)
            check_audio(site.talk(site.phone_1, offer, SERVER_MEDIA_1))
            site.hang_up(site.phone_1, site.server, sent)
        assert router.has_no_media()


def test_a_bad_configuration_fails_once_with_one_sentence(router: Router) -> None:
    router.systemctl("stop")
    for number, text in enumerate(("internal = lan0", 'internal = ["lan0"]', "prots = 1"), start=1):
        router.path(CONFIG).write_text(f"{text}\n")
        assert router.try_to_run("systemctl", "start", UNIT).returncode
        assert router.show(UNIT, "ActiveState") == "failed"
        assert router.show(UNIT, "ExecMainStatus") == "2"
        assert router.show(UNIT, "NRestarts") == "0"
        said = [line for line in router.journal(UNIT) if CONFIG in line]
        assert len(said) == number, router.journal(UNIT)


def test_a_purge_leaves_nothing(bare: Router, package: Path, site: Site) -> None:
    kernel, files = bare.kernel(), bare.files()
    bare.install(package)
    bare.set_up()
    configured = bare.run("cat", CONFIG)
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    assert bare.kernel() != kernel

    bare.apt("remove", "sipnat")
    assert bare.kernel() == kernel
    assert bare.run("cat", CONFIG) == configured, "a removal keeps what its owner has written"
    bare.apt("purge", "sipnat")
    assert bare.files() == files
    assert bare.try_to_run("id", "sipnat").returncode
    assert bare.run("systemctl", "is-system-running", "--wait").strip() == "running"


def test_a_purge_ends_well_whoever_is_called_sipnat(bare: Router, package: Path) -> None:
    bare.run("useradd", "--create-home", "sipnat")
    bare.install(package)
    bare.apt("purge", "sipnat")
    assert bare.run("runuser", "-u", "sipnat", "pwd"), "a person of that name stays"
    bare.run("userdel", "sipnat")
    bare.install(package)
    busy = ("systemd-run", "--property=User=sipnat", "sleep", "infinity")
    bare.run(*busy)
    bare.apt("purge", "sipnat")
    assert bare.try_to_run("dpkg-query", "--status", "sipnat").returncode
