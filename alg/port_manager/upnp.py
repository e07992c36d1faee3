"""Serves UPnP IGD on one internal interface: HTTP for descriptions and actions, SSDP to be found.

Anybody inside may connect, so little is taken for granted: a connection carries one request, is cut
after some seconds whatever it does, and is one of few; hosts that ask too often are hung up on
before a byte is read. A request must name the address that it came to, as that of no web page does
which a browser was lured with (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import cast
from xml.etree import ElementTree

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from async_upnp_client.client import UpnpService
from async_upnp_client.exceptions import UpnpError
from async_upnp_client.server import (
    UpnpServerDevice,
    UpnpServerService,
    action_handler,
    to_xml,
)

from alg.io.clock import now
from alg.port_manager.igd import INVALID_ACTION, INVALID_ARGS, ActionRefused, PortMappings
from alg.port_manager.igd_device import (
    CLIENT,
    VERSIONS,
    WanIpConnection,
    connection_status,
    gateway_device,
)
from alg.port_manager.igd_events import LONGEST, Subscriptions
from alg.port_manager.rate import Rate
from alg.port_manager.ssdp import SERVER, Offer, Ssdp, ssdp_socket

PORT = 2869
MAX_CONNECTIONS = 64
MAX_PER_HOST = 8
CONNECTION_TIMEOUT = 5.0
MAX_BODY = 16384
_MAX_LINE = 2048
_SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
_CONTROL = "urn:schemas-upnp-org:control-1-0"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UpnpServer:
    """Serves an interface at one of its addresses, and of hosts those that are behind it."""

    def __init__(
        self,
        interface: str,
        address: str,
        mappings: PortMappings,
        requests_per_host: int,
        is_behind: Callable[[str], bool],
    ) -> None:
        self._interface = interface
        self._address = address
        self._mappings = mappings
        self._is_behind = is_behind
        self._rate = Rate(requests_per_host)
        self._subscriptions = Subscriptions()
        self._stack = contextlib.AsyncExitStack()
        self._web: web.Server | None = None

    async def start(self) -> None:
        """Serves; raises OSError where a port cannot be had."""
        base = f"http://{self._address}:{PORT}"
        identity = _hardware_address(self._interface)
        devices = [gateway_device(each, identity, base, self._mappings) for each in VERSIONS]
        async with contextlib.AsyncExitStack() as stack:
            await self._start_http(devices, stack)
            await self._start_ssdp([_offers(device) for device in devices], stack)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Says byebye and stops; leases stay."""
        await self._stack.aclose()

    def announce(self) -> None:
        """Tells subscribers that the external address is another one."""
        for subscription in self._subscriptions.standing(now()):
            self._subscriptions.tell(subscription, self._variables(subscription.host))

    async def _start_http(
        self, devices: list[UpnpServerDevice], stack: contextlib.AsyncExitStack
    ) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        for device in devices:
            app.router.add_get(device.device_url, _describe(device))
            for service in device.all_services:
                definition = cast(UpnpServerService, service).SERVICE_DEFINITION
                app.router.add_get(definition.scpd_url, _describe(service))
                app.router.add_post(definition.control_url, control(service))
                if isinstance(service, WanIpConnection):
                    where = definition.event_sub_url
                    app.router.add_route("SUBSCRIBE", where, self._subscribe)
                    app.router.add_route("UNSUBSCRIBE", where, self._unsubscribe)
        runner = web.AppRunner(
            app,
            access_log=None,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            lingering_time=0.0,
            shutdown_timeout=1.0,
            logger=_log(),
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(self._subscriptions.close)
        self._web = runner.server
        listener = _listener(self._interface, self._address)
        stack.callback(listener.close)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Door(self._admit), sock=listener)
        stack.callback(server.close)

    async def _start_ssdp(
        self, offers: list[list[Offer]], stack: contextlib.AsyncExitStack
    ) -> None:
        announced, hidden = offers
        ssdp = Ssdp(announced, hidden, int(now()), lambda host: self._rate.allows(host, now()))
        udp = ssdp_socket(self._interface)
        stack.callback(udp.close)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: ssdp, sock=udp)
        stack.callback(ssdp.close)

    def _admit(self, host: str) -> asyncio.Protocol | None:
        """Returns who serves a connection of a host, None for nobody."""
        assert self._web is not None
        peers = [
            each.transport and each.transport.get_extra_info("peername")[0]
            for each in self._web.connections
        ]
        is_crowded = len(peers) >= MAX_CONNECTIONS or peers.count(host) >= MAX_PER_HOST
        if is_crowded or not self._rate.allows(host, now()):
            return None
        return self._web() if self._is_behind(host) else None

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.host not in (f"{self._address}:{PORT}", self._address):
            response: web.StreamResponse = web.Response(status=400)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                response = web.Response(status=refusal.status)
        response.headers["Server"] = SERVER
        response.force_close()
        return response

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        host = request.remote or ""
        begun = self._subscriptions.begin(host, request.headers, now())
        if isinstance(begun, int):
            return web.Response(status=begun)
        if "SID" not in request.headers:
            self._subscriptions.tell(begun, self._variables(host))
        return web.Response(headers={"SID": begun.sid, "TIMEOUT": f"Second-{LONGEST}"})

    async def _unsubscribe(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=self._subscriptions.end(request.remote or "", request.headers))

    def _variables(self, host: str) -> Mapping[str, str]:
        address = self._mappings.external_address(host)
        return {"ExternalIPAddress": address, "ConnectionStatus": connection_status(address)}


class _Door(asyncio.Protocol):
    """Lets a new connection in to whom `admit` returns, or hangs up."""

    def __init__(self, admit: Callable[[str], asyncio.Protocol | None]) -> None:
        self._admit = admit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Decides before anything is read."""
        connection = cast(asyncio.Transport, transport)
        inner = self._admit(transport.get_extra_info("peername")[0])
        if inner is None:
            connection.abort()
            return
        transport.set_protocol(inner)
        inner.connection_made(transport)
        asyncio.get_running_loop().call_later(CONNECTION_TIMEOUT, connection.abort)


def _log() -> logging.Logger:
    """Returns a log of our own errors: who sends garbage must not fill it."""
    log = logging.getLogger("sipnat.upnp")
    log.addFilter(_is_our_error)
    return log


def _is_our_error(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def _describe(thing: UpnpServerDevice | UpnpService) -> _Handler:
    async def describe(request: web.Request) -> web.StreamResponse:
        return await to_xml(cast(UpnpServerDevice, thing), request)

    return describe


def control(service: UpnpService) -> _Handler:
    """Returns what calls a service's actions, and renders what they refuse."""

    async def handle(request: web.Request) -> web.StreamResponse:
        CLIENT.set(request.remote or "")
        try:
            return await action_handler(cast(UpnpServerService, service), request)
        except ActionRefused as refusal:
            return _fault(refusal.code, str(refusal))
        except web.HTTPBadRequest as error:
            if error.reason == "InvalidAction":
                return _fault(INVALID_ACTION, "there is no such action")
            if error.reason == "InvalidActionArgument":
                return _fault(INVALID_ARGS, "there is no such argument")
            raise
        except (UpnpError, ValueError) as error:
            return _fault(INVALID_ARGS, str(error))

    return handle


def _fault(code: int, text: str) -> web.Response:
    """Renders a refusal (UPnP 2.0 §3.2.5)."""
    envelope = ElementTree.Element(
        "s:Envelope",
        {"xmlns:s": _SOAP, "s:encodingStyle": "http://schemas.xmlsoap.org/soap/encoding/"},
    )
    body = ElementTree.SubElement(envelope, "s:Body")
    fault = ElementTree.SubElement(body, "s:Fault")
    ElementTree.SubElement(fault, "faultcode").text = "s:Client"
    ElementTree.SubElement(fault, "faultstring").text = "UPnPError"
    detail = ElementTree.SubElement(fault, "detail")
    error = ElementTree.SubElement(detail, "UPnPError", {"xmlns": _CONTROL})
    ElementTree.SubElement(error, "errorCode").text = str(code)
    ElementTree.SubElement(error, "errorDescription").text = text
    rendered = ElementTree.tostring(envelope, encoding="utf-8", xml_declaration=True)
    return web.Response(status=500, content_type="text/xml", charset="utf-8", body=rendered)


def _offers(root: UpnpServerDevice) -> list[Offer]:
    """Returns what there is to be found of a gateway (UPnP 2.0 §1.2.2)."""
    location = f"{root.base_uri}{root.device_url}"
    offers = [Offer("upnp:rootdevice", f"{root.udn}::upnp:rootdevice", location)]
    for device in root.all_devices:
        offers.append(Offer(device.udn, device.udn, location))
        kind = device.device_type
        offers.append(Offer(kind, f"{device.udn}::{kind}", location))
    for service in root.all_services:
        kind = service.service_type
        offers.append(Offer(kind, f"{service.device.udn}::{kind}", location))
    return offers


def _listener(interface: str, address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        made.bind((address, PORT))
        made.listen(MAX_CONNECTIONS)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            text = f"another program has TCP port {PORT} of {interface}"
            raise OSError(error.errno, text) from error
        raise
    return made


def _hardware_address(interface: str) -> str:
    with open(f"/sys/class/net/{interface}/address", encoding="ascii") as file:
        return file.read().strip()
