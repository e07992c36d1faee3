"""linphone (Debian's linphone-cli): its daemon, with a configuration and a home of its own.

The daemon prints what becomes of calls, but of a registration only when it is asked. It has no
sound card here, so each call plays a file, which is begun whenever its streams start.
"""

from __future__ import annotations

import math
import struct
import time
import wave
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.lab.namespace import Namespace
from tests.phones.phone import RTP_PORT, Account, PhoneFailed
from tests.phones.program import CallState, ProgramPhone

ASK_INTERVAL = 0.3
SESSION_EXPIRES = 90
TONE = "tone.wav"
TONE_RATE = 8000
TONE_SECONDS = 60
HOME_FOLDERS = (".config/linphone", ".local/share/linphone")

EVENT = "Event: LinphoneCall"
STATES = {
    "StreamsRunning": CallState.UP,
    "Paused": CallState.HELD,
    "PausedByRemote": CallState.HELD_BY_OTHER,
}
ENDS = ("End", "Error", "Released")

CONFIGURATION = """\
[sip]
sip_port=5060
sip_tcp_port=5060
sip_tls_port=-1
default_proxy=0
use_ipv6=0
ipv6_migration_done=1
register_only_when_network_is_up=0
media_encryption={encryption}
media_encryption_mandatory={has_srtp:d}
session_expires_enabled={has_session_timer:d}
session_expires_value={session_expires}
session_expires_min_value={session_expires}

[rtp]
audio_rtp_port={rtp_port}

[net]
nat_policy_ref=here

[nat_policy_0]
ref=here
stun_server={stun}
protocols={protocols}

[proxy_0]
reg_proxy=<sip:{server};transport={transport}>
reg_route=<sip:{server};transport={transport}>
reg_identity=<sip:{user}@{server}>
reg_expires=120
reg_sendregister=1
publish=0
nat_policy_ref=here

[auth_info_0]
username={user}
passwd={password}
domain={server}
"""


class Linphone(ProgramPhone):
    """Linphone's own library, as its daemon runs it."""

    kind: ClassVar[str] = "linphone"
    programs: ClassVar[tuple[str, ...]] = ("linphone-daemon",)
    cannot: ClassVar[dict[str, str]] = {
        "STUN": "linphone 5.1 asks STUN servers for ICE only",
    }

    def __init__(self, namespace: Namespace, address: str, account: Account) -> None:
        super().__init__(namespace, address, account)
        self._event = ""

    def command(self, directory: Path) -> list[str]:
        for folder in HOME_FOLDERS:
            directory.joinpath(folder).mkdir(parents=True)
        write_tone(directory / TONE)
        configuration = directory / "linphonerc"
        configuration.write_text(render_configuration(self.account))
        return [
            *("env", "-C", str(directory), f"HOME={directory}", "TERM=dumb"),
            *("linphone-daemon", "--auto-answer"),
            *("--disable-stats-events", "--config", str(configuration)),
            *("--log", str(directory / "log")),
        ]

    def word(self, verb: str, *arguments: str | int) -> str:
        command = {
            "call": "call",
            "hold": "call-pause",
            "resume": "call-resume",
            "transfer": "call-transfer",
            "hang-up": "terminate",
            "quit": "quit",
        }[verb]
        return " ".join((command, *map(str, arguments)))

    def wait_until_registered(self, timeout: float) -> None:
        self.program.say("audio-codec-disable ALL")
        self.program.say("audio-codec-enable PCMU/8000/1")
        ends_at = time.monotonic() + timeout
        while time.monotonic() < ends_at:
            self.program.say("register-status ALL")
            try:
                self.program.wait_until(lambda: self.is_registered, "registered", ASK_INTERVAL)
                return
            except PhoneFailed:
                continue
        raise PhoneFailed(f"not registered within {timeout:g} s\n{self.program.log()}")

    def heed(self, line: str) -> None:
        if line == "State: LinphoneRegistrationOk":
            self.is_registered = True
        elif line.startswith(EVENT):
            self._event = line.removeprefix(EVENT)
        elif self._event and line.startswith("Id: "):
            self._note(int(line.removeprefix("Id: ")), self._event)
            self._event = ""

    def _note(self, number: int, event: str) -> None:
        self.calls[number] = STATES.get(event, CallState.BEGUN)
        if event == "StreamsRunning":
            with suppress(PhoneFailed):
                self.program.say(f"incall-player-start {TONE} {number}")
        elif event in ENDS:
            del self.calls[number]


def render_configuration(account: Account) -> str:
    """Returns the program's configuration file for a phone with that account."""
    protocols = ["stun"] * bool(account.stun) + ["ice"] * account.has_ice
    return CONFIGURATION.format(
        user=account.user,
        password=account.password,
        server=account.server,
        transport=account.transport,
        stun=account.stun,
        protocols=",".join(protocols),
        encryption="srtp" if account.has_srtp else "none",
        has_srtp=account.has_srtp,
        has_session_timer=account.has_session_timer,
        session_expires=SESSION_EXPIRES,
        rtp_port=RTP_PORT,
    )


def write_tone(path: Path) -> None:
    """Writes a minute of a 440 Hz tone."""
    samples = (int(8000 * math.sin(math.tau * 440 * i / TONE_RATE)) for i in range(TONE_RATE))
    second = b"".join(struct.pack("<h", sample) for sample in samples)
    with wave.open(str(path), "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(TONE_RATE)
        tone.writeframes(second * TONE_SECONDS)
