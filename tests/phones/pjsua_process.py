"""The pjsua phone itself: a program of pjsua2, run in the phone's namespace.

Its only argument is a JSON object: the fields of `Account`, and `address`. Each line of standard
input is a JSON array of a verb and its arguments; each line of standard output one of an event and
what it is about. One thread does everything, so no callback ever waits for another.
"""

from __future__ import annotations

import json
import select
import sys
from typing import Any

import pjsua2

from tests.phones.phone import RTP_PORT

SIP_PORT = 5060
EXPIRES = 120
SESSION_EXPIRES = 90
STEP = 10
"""Milliseconds for which the library has its turn before standard input is looked at."""

MEDIA_STATES = {
    pjsua2.PJSUA_CALL_MEDIA_ACTIVE: "active",
    pjsua2.PJSUA_CALL_MEDIA_LOCAL_HOLD: "held",
    pjsua2.PJSUA_CALL_MEDIA_REMOTE_HOLD: "held by the other side",
}


class Call(pjsua2.Call):  # type: ignore[misc]
    """A call, whose audio is the silence of the null device."""

    def __init__(self, line: Line, number: int = pjsua2.PJSUA_INVALID_ID) -> None:
        super().__init__(line, number)
        self._line = line

    def onCallState(self, param: Any) -> None:
        """Tells of the call's beginning and end, and keeps the object for as long."""
        info = self.getInfo()
        if info.state == pjsua2.PJSIP_INV_STATE_DISCONNECTED:
            tell("end", info.id, info.lastStatusCode, info.lastReason)
            self._line.calls.pop(info.id, None)
        elif info.id not in self._line.calls:
            self._line.calls[info.id] = self
            tell("call", info.id)

    def onCallMediaState(self, param: Any) -> None:
        """Joins the audio to the null device, and tells which way it goes."""
        info = self.getInfo()
        for index, media in enumerate(info.media):
            if media.type != pjsua2.PJMEDIA_TYPE_AUDIO:
                continue
            if media.status == pjsua2.PJSUA_CALL_MEDIA_ACTIVE:
                audio, devices = self.getAudioMedia(index), self._line.devices
                devices.getCaptureDevMedia().startTransmit(audio)
                audio.startTransmit(devices.getPlaybackDevMedia())
            tell("media", info.id, MEDIA_STATES.get(media.status, "none"))

    def onCallTransferRequest(self, param: Any) -> None:
        """Accepts to be sent elsewhere (REFER)."""
        param.newCall = self._line.begun = Call(self._line)

    def onCallTransferStatus(self, param: Any) -> None:
        """Hangs up when the other side has got where it was sent."""
        tell("transfer", param.statusCode)
        if param.finalNotify and param.statusCode == pjsua2.PJSIP_SC_OK:
            param.cont = False
            self.hangup(pjsua2.CallOpParam())


class Line(pjsua2.Account):  # type: ignore[misc]
    """The phone's account, which answers whatever rings."""

    def __init__(self, devices: Any) -> None:
        super().__init__()
        self.devices = devices
        self.calls: dict[int, Call] = {}
        self.begun: Call | None = None
        """What begins, and has no number yet: the library does not keep the object."""

    def onRegState(self, param: Any) -> None:
        """Tells what the registrar has said."""
        tell("registration", param.code, param.reason)

    def onIncomingCall(self, param: Any) -> None:
        """Answers."""
        self.calls[param.callId] = Call(self, param.callId)
        tell("call", param.callId)
        answer = pjsua2.CallOpParam()
        answer.statusCode = pjsua2.PJSIP_SC_OK
        self.calls[param.callId].answer(answer)

    def obey(self, verb: str, *arguments: Any) -> None:
        """Does what a line of standard input says."""
        match verb, arguments:
            case "call", (uri,):
                self.begun = Call(self)
                self.begun.makeCall(uri, pjsua2.CallOpParam(True))
            case "hold", (number,):
                self.calls[number].setHold(pjsua2.CallOpParam())
            case "resume", (number,):
                again = pjsua2.CallOpParam(True)
                again.opt.flag = pjsua2.PJSUA_CALL_UNHOLD
                self.calls[number].reinvite(again)
            case "transfer", (number, uri):
                self.calls[number].xfer(uri, pjsua2.CallOpParam())
            case "hang-up", (number,):
                self.calls[number].hangup(pjsua2.CallOpParam())


def tell(*event: object) -> None:
    """Prints an event, in one piece: the library may call from a thread of its own."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def make_endpoint(settings: dict[str, Any]) -> Any:
    """Starts the library, with a null device in place of a sound card."""
    config = pjsua2.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 3
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.medConfig.noVad = True
    if settings["stun"]:
        config.uaConfig.stunServer.append(settings["stun"])
    endpoint = pjsua2.Endpoint()
    endpoint.libCreate()
    endpoint.libInit(config)
    transport = pjsua2.TransportConfig()
    transport.port = SIP_PORT
    for kind in (pjsua2.PJSIP_TRANSPORT_UDP, pjsua2.PJSIP_TRANSPORT_TCP):
        endpoint.transportCreate(kind, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    for codec in endpoint.codecEnum2():
        endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId.startswith("PCMU") else 0)
    return endpoint


def make_account(settings: dict[str, Any]) -> Any:
    """Returns the account's configuration."""
    user, server = settings["user"], settings["server"]
    route = f"sip:{server};transport={settings['transport']};lr"
    account = pjsua2.AccountConfig()
    account.idUri = f"sip:{user}@{server}"
    account.regConfig.registrarUri = f"sip:{server}"
    account.regConfig.timeoutSec = EXPIRES
    account.sipConfig.proxies.append(route)
    account.sipConfig.authCreds.append(
        pjsua2.AuthCredInfo("digest", "*", user, 0, settings["password"])
    )
    account.mediaConfig.transportConfig.port = RTP_PORT
    account.natConfig.iceEnabled = settings["has_ice"]
    if settings["has_srtp"]:
        account.mediaConfig.srtpUse = pjsua2.PJMEDIA_SRTP_MANDATORY
        account.mediaConfig.srtpSecureSignaling = 0
    if settings["has_session_timer"]:
        account.callConfig.timerUse = pjsua2.PJSUA_SIP_TIMER_ALWAYS
        account.callConfig.timerSessExpiresSec = SESSION_EXPIRES
    return account


def run(settings: dict[str, Any]) -> None:
    """Registers, and does what it is told until the line "quit" or the end of standard input."""
    endpoint = make_endpoint(settings)
    line = Line(endpoint.audDevManager())
    line.create(make_account(settings))
    while True:
        endpoint.libHandleEvents(STEP)
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        words = json.loads(sys.stdin.readline() or '["quit"]')
        if words == ["quit"]:
            break
        line.obey(*words)
    endpoint.libDestroy()


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
