"""The devices and services that a UPnP gateway is described by, and is called through.

Of the library come descriptions and SOAP: it makes each from these classes, looks at the arguments'
types, and hands them to the methods, by name. An InternetGatewayDevice:2 stands beside one of
version 1, for control points that read no later description.
"""

# No `from __future__ import annotations`: the library reads the types of arguments at run time.

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, TypeVar, cast
from xml.etree import ElementTree

from async_upnp_client.client import UpnpRequester
from async_upnp_client.const import DeviceInfo, ServiceInfo, StateVariableTypeInfo
from async_upnp_client.server import (
    NopRequester,
    UpnpServerDevice,
    UpnpServerService,
    callable_action,
    create_event_var,
    create_state_var,
)

from alg.io.clock import now
from alg.port_manager.igd import ACTION_FAILED, ActionRefused, Entry, PortMappings
from nat_table.endpoint import Endpoint, Transport

VERSIONS = (2, 1)

CLIENT: ContextVar[str] = ContextVar("client")
"""The address of who calls an action, for as long as that runs."""

_NAMESPACE = uuid.UUID("8f1f5a0e-62f5-4a0c-9c0a-5f3f7d1b2c64")

_F = TypeVar("_F", bound=Callable[..., Any])


def _action(name: str, takes: Mapping[str, str], gives: Mapping[str, str]) -> Callable[[_F], _F]:
    return cast(Callable[[_F], _F], callable_action(name, takes, gives))


def _number(highest: int) -> StateVariableTypeInfo:
    kind = "ui2" if highest < 1 << 16 else "ui4"
    return create_state_var(kind, allowed_range={"min": "0", "max": str(highest)})


_KEY = {
    "NewRemoteHost": "RemoteHost",
    "NewExternalPort": "ExternalPort",
    "NewProtocol": "PortMappingProtocol",
}
_REST = {
    "NewInternalPort": "InternalPort",
    "NewInternalClient": "InternalClient",
    "NewEnabled": "PortMappingEnabled",
    "NewPortMappingDescription": "PortMappingDescription",
    "NewLeaseDuration": "PortMappingLeaseDuration",
}
_RANGE = {
    "NewStartPort": "ExternalPort",
    "NewEndPort": "ExternalPort",
    "NewProtocol": "PortMappingProtocol",
    "NewManage": "A_ARG_TYPE_Manage",
}


class WanIpConnection(UpnpServerService):
    """WANIPConnection: the external address, and port mappings.

    What version 2 has added is in both, because there are clients that look for version 1 and call
    it all the same (upnpc).
    """

    STATE_VARIABLE_DEFINITIONS = {  # noqa: RUF012
        "ConnectionType": create_state_var("string"),
        "PossibleConnectionTypes": create_state_var("string"),
        "ConnectionStatus": create_event_var("string"),
        "Uptime": create_state_var("ui4"),
        "LastConnectionError": create_state_var("string"),
        "RSIPAvailable": create_state_var("boolean"),
        "NATEnabled": create_state_var("boolean"),
        "ExternalIPAddress": create_event_var("string"),
        "PortMappingNumberOfEntries": create_state_var("ui2"),
        "PortMappingEnabled": create_state_var("boolean"),
        "PortMappingLeaseDuration": _number(0xFFFFFFFF),
        "RemoteHost": create_state_var("string"),
        "ExternalPort": _number(65535),
        "InternalPort": _number(65535),
        "PortMappingProtocol": create_state_var("string", allowed=["TCP", "UDP"]),
        "InternalClient": create_state_var("string"),
        "PortMappingDescription": create_state_var("string"),
        "A_ARG_TYPE_Manage": create_state_var("boolean"),
    }

    def __init__(self, requester: UpnpRequester) -> None:
        super().__init__(requester)
        self.mappings: PortMappings
        self._started_at = now()

    @_action(
        "GetConnectionTypeInfo",
        {},
        {
            "NewConnectionType": "ConnectionType",
            "NewPossibleConnectionTypes": "PossibleConnectionTypes",
        },
    )
    async def get_connection_type_info(self) -> dict[str, Any]:
        """Says that packets are routed."""
        return {"NewConnectionType": "IP_Routed", "NewPossibleConnectionTypes": "IP_Routed"}

    @_action(
        "GetStatusInfo",
        {},
        {
            "NewConnectionStatus": "ConnectionStatus",
            "NewLastConnectionError": "LastConnectionError",
            "NewUptime": "Uptime",
        },
    )
    async def get_status_info(self) -> dict[str, Any]:
        """Says whether there is an external address, and since when the gateway runs."""
        return {
            "NewConnectionStatus": connection_status(self._external_address()),
            "NewLastConnectionError": "ERROR_NONE",
            "NewUptime": int(now() - self._started_at),
        }

    @_action(
        "GetNATRSIPStatus",
        {},
        {"NewRSIPAvailable": "RSIPAvailable", "NewNATEnabled": "NATEnabled"},
    )
    async def get_nat_rsip_status(self) -> dict[str, Any]:
        """Says that there is a NAT."""
        return {"NewRSIPAvailable": False, "NewNATEnabled": True}

    @_action("GetExternalIPAddress", {}, {"NewExternalIPAddress": "ExternalIPAddress"})
    async def get_external_ip_address(self) -> dict[str, Any]:
        """Returns the address that the client's mappings are on."""
        return {"NewExternalIPAddress": self._external_address()}

    @_action("AddPortMapping", {**_KEY, **_REST}, {})
    async def add_port_mapping(
        self,
        NewRemoteHost: str,
        NewExternalPort: int,
        NewProtocol: str,
        NewInternalPort: int,
        NewInternalClient: str,
        NewEnabled: bool,
        NewPortMappingDescription: str,
        NewLeaseDuration: int,
    ) -> dict[str, Any]:
        """Makes or renews an entry with exactly this external port."""
        entry = Entry(
            NewRemoteHost,
            NewExternalPort,
            Transport[NewProtocol],
            Endpoint(NewInternalClient, NewInternalPort),
            NewPortMappingDescription,
            NewLeaseDuration,
        )
        self._add(entry, NewEnabled, is_exact=True)
        return {}

    @_action("DeletePortMapping", _KEY, {})
    async def delete_port_mapping(
        self, NewRemoteHost: str, NewExternalPort: int, NewProtocol: str
    ) -> dict[str, Any]:
        """Deletes an entry."""
        transport = Transport[NewProtocol]
        self.mappings.delete(CLIENT.get(), NewRemoteHost, NewExternalPort, transport, now())
        return {}

    @_action(
        "GetGenericPortMappingEntry",
        {"NewPortMappingIndex": "PortMappingNumberOfEntries"},
        {**_KEY, **_REST},
    )
    async def get_generic_port_mapping_entry(self, NewPortMappingIndex: int) -> dict[str, Any]:
        """Returns the entry of an index."""
        return _fields(self.mappings.entry_at(CLIENT.get(), NewPortMappingIndex, now()))

    @_action("GetSpecificPortMappingEntry", _KEY, _REST)
    async def get_specific_port_mapping_entry(
        self, NewRemoteHost: str, NewExternalPort: int, NewProtocol: str
    ) -> dict[str, Any]:
        """Returns the entry of a remote host, external port and protocol."""
        transport = Transport[NewProtocol]
        client = CLIENT.get()
        entry = self.mappings.entry(client, NewRemoteHost, NewExternalPort, transport, now())
        return {key: value for key, value in _fields(entry).items() if key in _REST}

    @_action("AddAnyPortMapping", {**_KEY, **_REST}, {"NewReservedPort": "ExternalPort"})
    async def add_any_port_mapping(
        self,
        NewRemoteHost: str,
        NewExternalPort: int,
        NewProtocol: str,
        NewInternalPort: int,
        NewInternalClient: str,
        NewEnabled: bool,
        NewPortMappingDescription: str,
        NewLeaseDuration: int,
    ) -> dict[str, Any]:
        """Makes or renews an entry with this external port, or another; returns which."""
        entry = Entry(
            NewRemoteHost,
            NewExternalPort,
            Transport[NewProtocol],
            Endpoint(NewInternalClient, NewInternalPort),
            NewPortMappingDescription,
            NewLeaseDuration,
        )
        return {"NewReservedPort": self._add(entry, NewEnabled, is_exact=False)}

    @_action("DeletePortMappingRange", _RANGE, {})
    async def delete_port_mapping_range(
        self, NewStartPort: int, NewEndPort: int, NewProtocol: str, NewManage: bool
    ) -> dict[str, Any]:
        """Deletes the client's entries of a range."""
        ports = range(NewStartPort, NewEndPort + 1)
        self.mappings.delete_range(CLIENT.get(), ports, Transport[NewProtocol], now())
        return {}

    def _add(self, entry: Entry, is_enabled: bool, *, is_exact: bool) -> int:
        if not is_enabled:
            raise ActionRefused(ACTION_FAILED, "an entry that maps nothing is not kept")
        return self.mappings.add(CLIENT.get(), entry, now(), is_exact=is_exact)

    def _external_address(self) -> str:
        return self.mappings.external_address(CLIENT.get())


class WanCommonInterfaceConfig(UpnpServerService):
    """WANCommonInterfaceConfig:1, as far as clients look whether the link is up."""

    STATE_VARIABLE_DEFINITIONS = {  # noqa: RUF012
        "WANAccessType": create_state_var("string"),
        "Layer1UpstreamMaxBitRate": create_state_var("ui4"),
        "Layer1DownstreamMaxBitRate": create_state_var("ui4"),
        "PhysicalLinkStatus": create_state_var("string"),
    }

    @_action(
        "GetCommonLinkProperties",
        {},
        {
            "NewWANAccessType": "WANAccessType",
            "NewLayer1UpstreamMaxBitRate": "Layer1UpstreamMaxBitRate",
            "NewLayer1DownstreamMaxBitRate": "Layer1DownstreamMaxBitRate",
            "NewPhysicalLinkStatus": "PhysicalLinkStatus",
        },
    )
    async def get_common_link_properties(self) -> dict[str, Any]:
        """Says that the link is up; its speed is not known."""
        return {
            "NewWANAccessType": "Ethernet",
            "NewLayer1UpstreamMaxBitRate": 0,
            "NewLayer1DownstreamMaxBitRate": 0,
            "NewPhysicalLinkStatus": "Up",
        }


def gateway_device(
    version: int, identity: str, base_uri: str, mappings: PortMappings
) -> UpnpServerDevice:
    """Returns an InternetGatewayDevice of a version; `identity` tells it from every other's."""
    connection = _service(WanIpConnection, version, version)
    common = _service(WanCommonInterfaceConfig, 1, version)
    inner = _device("WANConnectionDevice", version, identity, (), (connection,))
    wan = _device("WANDevice", version, identity, (inner,), (common,))
    root = _device("InternetGatewayDevice", version, identity, (wan,), ())
    made = root(NopRequester(), base_uri)
    for service in made.all_services:
        if isinstance(service, WanIpConnection):
            service.mappings = mappings
    return made


def connection_status(external_address: str) -> str:
    """Returns UPnP's word for whether there is an external address."""
    return "Connected" if external_address else "Disconnected"


def _device(
    name: str,
    version: int,
    identity: str,
    devices: Sequence[type[UpnpServerDevice]],
    services: Sequence[type[UpnpServerService]],
) -> type[UpnpServerDevice]:
    class Device(UpnpServerDevice):
        DEVICE_DEFINITION = DeviceInfo(
            device_type=f"urn:schemas-upnp-org:device:{name}:{version}",
            friendly_name="sipnat",
            manufacturer="sipnat",
            manufacturer_url=None,
            model_description="NAT Application Level Gateway for SIP",
            model_name="sipnat",
            model_number=None,
            model_url=None,
            serial_number=None,
            udn=f"uuid:{uuid.uuid5(_NAMESPACE, f'{identity} {name}:{version}')}",
            upc=None,
            presentation_url=None,
            url=f"/{version}/device.xml",
            icons=[],
            xml=ElementTree.Element("device"),
        )
        EMBEDDED_DEVICES = devices
        SERVICES = services

    return Device


def _service(
    base: type[UpnpServerService], own_version: int, version: int
) -> type[UpnpServerService]:
    name = "WANCommonInterfaceConfig" if base is WanCommonInterfaceConfig else "WANIPConnection"

    class Service(base):  # type: ignore[valid-type, misc]
        SERVICE_DEFINITION: ClassVar = ServiceInfo(
            service_id=f"urn:upnp-org:serviceId:{name}1",
            service_type=f"urn:schemas-upnp-org:service:{name}:{own_version}",
            control_url=f"/{version}/{name}/control",
            event_sub_url=f"/{version}/{name}/events",
            scpd_url=f"/{version}/{name}/scpd.xml",
            xml=ElementTree.Element("service"),
        )

    return Service


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "NewRemoteHost": entry.remote_host,
        "NewExternalPort": entry.external_port,
        "NewProtocol": entry.transport.name,
        "NewInternalPort": entry.internal.port,
        "NewInternalClient": entry.internal.address,
        "NewEnabled": True,
        "NewPortMappingDescription": entry.description,
        "NewLeaseDuration": entry.lifetime,
    }
