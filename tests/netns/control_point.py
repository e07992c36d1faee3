"""A control point of UPnP: Debian's upnpc, and plain sockets for what that would never send."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from contextlib import closing
from typing import NamedTuple

from tests.lab.namespace import Namespace
from tests.lab.network import LAN_ROUTER, PHONE_1, Network

PORT = 2869
DESCRIPTION = f"http://{LAN_ROUTER}:{PORT}/2/device.xml"
CONTROL = "/2/WANIPConnection/control"
EVENTS = "/2/WANIPConnection/events"
GROUP = ("239.255.255.250", 1900)
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:2"
SEARCH = 'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {}\r\n\r\n'
GATEWAY_TYPE = "urn:schemas-upnp-org:device:InternetGatewayDevice:{}"


class Ran(NamedTuple):
    """What a command said."""

    status: int
    text: str


def upnpc(network: Network, *arguments: str) -> Ran:
    """Runs Debian's client on the phones' side; -i, as it does not trust test addresses."""
    command = network.lan.command("upnpc", "-i", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return Ran(done.returncode, done.stdout)


def told(network: Network, *arguments: str) -> Ran:
    """Runs the client without a search, which takes it two seconds."""
    return upnpc(network, "-u", DESCRIPTION, *arguments)


def send_http(network: Network, data: bytes, source: str = PHONE_1) -> bytes:
    """Sends bytes to the gateway; returns all that it answers until it hangs up."""
    with closing(network.lan.tcp_socket(source)) as tcp:
        tcp.settimeout(15)
        try:
            tcp.connect((LAN_ROUTER, PORT))
            tcp.sendall(data)
            return b"".join(iter(lambda: tcp.recv(65536), b""))
        except ConnectionError:
            return b""


def request(method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """Renders an HTTP request."""
    head = (f"{method} {path} HTTP/1.1", f"HOST: {LAN_ROUTER}:{PORT}", *lines)
    return "\r\n".join((*head, f"CONTENT-LENGTH: {len(body)}", "", "")).encode() + body


def soap(action: str, arguments: dict[str, str]) -> bytes:
    """Renders a call."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    body = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action} xmlns:u="{SERVICE}">{inner}</u:{action}></s:Body></s:Envelope>'
    )
    return request("POST", CONTROL, f'SOAPACTION: "{SERVICE}#{action}"', body=body.encode())


def add(external: int, client: str, internal: int, **changed: str) -> bytes:
    """Renders a call of AddPortMapping."""
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(external),
        "NewProtocol": "UDP",
        "NewInternalPort": str(internal),
        "NewInternalClient": client,
        "NewEnabled": "1",
        "NewPortMappingDescription": "test",
        "NewLeaseDuration": "600",
    }
    return soap("AddPortMapping", {**arguments, **changed})


def status_of(answer: bytes) -> int:
    """Returns the HTTP status of an answer, 0 where there was none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def code_of(answer: bytes) -> int:
    """Returns UPnP's number for what was refused."""
    found = re.search(rb"<errorCode>([0-9]+)</errorCode>", answer)
    assert status_of(answer) == 500 and found, answer
    return int(found[1])


def search(namespace: Namespace, source: str, target: tuple[str, int], kind: str) -> list[str]:
    """Searches; returns the answers that come within half a second."""
    with closing(namespace.udp_socket(source)) as udp:
        multicast = socket.inet_aton(source)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, multicast)
        udp.sendto(SEARCH.format(kind).encode(), target)
        udp.settimeout(0.5)
        answers = []
        while True:
            try:
                answers.append(udp.recv(2048).decode())
            except TimeoutError:
                return answers


def search_all(network: Network) -> list[str]:
    """Searches for everything, from inside."""
    return search(network.lan, PHONE_1, GROUP, "ssdp:all")


def send_http_cut(network: Network, data: bytes) -> None:
    """Sends the beginning of a request and goes away."""
    with closing(network.lan.tcp_socket(PHONE_1)) as tcp:
        tcp.connect((LAN_ROUTER, PORT))
        tcp.sendall(data)


def is_hung_up_on(tcp: socket.socket) -> bool:
    """Waits for the end of a connection that gets no answer."""
    try:
        return tcp.recv(1) == b""
    except ConnectionError:
        return True


class Listening:
    """Collects what is announced on the phones' side."""

    def __init__(self, namespace: Namespace) -> None:
        self.heard: list[str] = []
        self._udp = namespace.udp_socket("0.0.0.0", GROUP[1])
        group = socket.inet_aton(GROUP[0]) + socket.inet_aton(PHONE_1)
        self._udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        self._udp.settimeout(0.1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self.heard

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._udp.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self.heard.append(self._udp.recv(2048).decode())
            except TimeoutError:
                continue
