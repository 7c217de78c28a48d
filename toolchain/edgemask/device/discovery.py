"""Devices that announce themselves on this network (multicast DNS): ours by their service, others by ssh's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgemask.errors import UserError

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

OURS = "_edgemask._tcp.local."
OTHERS = ("_ssh._tcp.local.", "_sftp-ssh._tcp.local.", "_udisks-ssh._tcp.local.", "_workstation._tcp.local.")
SSH_PORT = 22
ANSWER_MS = 3000


@dataclass
class Found:
    """A host that announced itself: `release` is what it runs of ours, by what it says."""

    host: str
    addresses: list[str] = field(default_factory=list)
    port: int = SSH_PORT
    release: dict[str, str] = field(default_factory=dict)

    @property
    def destination(self) -> str:
        """What goes behind --to."""
        return self.host if self.port == SSH_PORT else f"ssh://{self.host}:{self.port}"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "to": self.destination}


def devices(wait_s: float = 3.0, interfaces: Sequence[str] = ()) -> list[Found]:
    """Listen for so long; those with Edgemask first. `interfaces` are addresses of this machine's, all if none.

    UserError where zeroconf is missing or this machine has no network to ask.
    """
    zeroconf = _opened(interfaces)
    try:
        hosts: dict[str, Found] = {}
        for kind, info in _announced(zeroconf, wait_s):
            _add(hosts, kind, info)
    finally:
        zeroconf.close()
    return sorted(hosts.values(), key=lambda found: (not found.release, found.host))


def _opened(interfaces: Sequence[str]) -> Zeroconf:
    try:
        import ifaddr
        from zeroconf import InterfaceChoice, Zeroconf
    except ImportError as error:
        message = "devices are looked for with `zeroconf`, which is missing"
        raise UserError(message, "pip install 'edgemask[devices]'") from error
    own = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    for address in interfaces:
        if address not in own:
            raise UserError(f"{address} is no address of this machine", f"allowed: {', '.join(own)}")
    try:
        return Zeroconf(interfaces=list(interfaces) or InterfaceChoice.All)
    except (OSError, RuntimeError) as error:
        raise UserError(f"this machine cannot ask its network: {error}", "is it connected? `ip -br address`") from error


def _announced(zeroconf: Zeroconf, wait_s: float) -> Iterator[tuple[str, ServiceInfo]]:
    """What was announced until the time was up, with where each is."""
    from zeroconf import ServiceBrowser, ServiceListener

    class Names(ServiceListener):
        def __init__(self) -> None:
            self.seen: dict[tuple[str, str], None] = {}

        def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen[type_, name] = None

        def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen[type_, name] = None

        def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen.pop((type_, name), None)

    names = Names()
    browser = ServiceBrowser(zeroconf, [OURS, *OTHERS], names)
    time.sleep(wait_s)
    browser.cancel()
    for kind, name in list(names.seen):
        info = zeroconf.get_service_info(kind, name, ANSWER_MS)
        if info and info.server:
            yield kind, info


def _add(hosts: dict[str, Found], kind: str, info: ServiceInfo) -> None:
    host = (info.server or "").rstrip(".")
    found = hosts.setdefault(host, Found(host))
    found.addresses = sorted({*found.addresses, *info.parsed_scoped_addresses()})
    if kind == OURS:
        told = {key.decode("utf-8", "replace"): value for key, value in info.properties.items()}
        found.release = {key: (value or b"").decode("utf-8", "replace") for key, value in told.items()}
        found.port = info.port or SSH_PORT
    elif kind.startswith("_ssh") and not found.release:
        found.port = info.port or SSH_PORT
