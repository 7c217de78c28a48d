"""Devices that announce themselves on this network (multicast DNS): ours by their service, others by ssh's.

Anybody on the network may announce anything: what is no name of a host is dropped, and what is shown is plain text.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from edgemask.device.destination import HOST
from edgemask.device.upload import Tell
from edgemask.errors import UserError

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo

OURS = "_edgemask._tcp.local."
OTHERS = ("_ssh._tcp.local.", "_sftp-ssh._tcp.local.", "_udisks-ssh._tcp.local.", "_workstation._tcp.local.")
SSH_PORT = 22
ANSWER_MS = 3000
MOST = 250
"""So many names of a kind are asked where they are."""
LONGEST_HOST, LONGEST, MOST_TOLD = 253, 64, 16
PARTS = 10


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


def devices(wait_s: float = 3.0, interfaces: Sequence[str] = (), tell: Tell = lambda *_: None) -> list[Found]:
    """Listen for so long; those with Edgemask first. `interfaces` are addresses of this machine's, all if none.

    UserError where zeroconf is missing or this machine has no network to ask.
    """
    zeroconf = _opened(interfaces)
    try:
        hosts: dict[str, Found] = {}
        for kind, info in _announced(zeroconf, wait_s, tell):
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


def _announced(zeroconf: Zeroconf, wait_s: float, tell: Tell) -> Iterator[tuple[str, ServiceInfo]]:
    """What was announced until the time was up, with where each is: all are asked at once."""
    names = _heard(zeroconf, wait_s, tell)
    infos = [info for kind, seen in names.items() for name in islice(seen, MOST) if (info := _asking(kind, name))]
    left = sum(max(0, len(seen) - MOST) for seen in names.values())
    tell(f"ask {len(infos)} names where they are{f' (of {left} more nobody is asked)' if left else ''}", 0, 1)
    if zeroconf.loop is None:
        raise RuntimeError("Zeroconf runs from the moment that it is made")
    asyncio.run_coroutine_threadsafe(_answers(zeroconf, infos), zeroconf.loop).result()
    yield from ((info.type, info) for info in infos if _is_host(info))


def _heard(zeroconf: Zeroconf, wait_s: float, tell: Tell) -> dict[str, dict[str, None]]:
    """The names of each kind that were announced, those of ours first; at most one more than will be asked."""
    from zeroconf import ServiceBrowser, ServiceListener

    class Names(ServiceListener):
        def __init__(self) -> None:
            self.seen: dict[str, dict[str, None]] = {kind: {} for kind in (OURS, *OTHERS)}

        def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen[type_][name] = None

        def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen[type_][name] = None

        def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            self.seen[type_].pop(name, None)

    names = Names()
    browser = ServiceBrowser(zeroconf, list(names.seen), names)
    for part in range(PARTS):
        tell("listen", part, PARTS)
        time.sleep(wait_s / PARTS)
    browser.cancel()
    return names.seen


def _asking(kind: str, name: str) -> AsyncServiceInfo | None:
    """The question where a name is; None for one that is not of its kind, such as `x._http._tcp.local.` for ssh."""
    from zeroconf import BadTypeInNameException
    from zeroconf.asyncio import AsyncServiceInfo

    try:
        return AsyncServiceInfo(kind, name)
    except BadTypeInNameException:
        return None


async def _answers(zeroconf: Zeroconf, infos: Sequence[AsyncServiceInfo]) -> None:
    """Wait until each has its answer, for so long and no longer."""
    from zeroconf import Error

    async def answer(info: AsyncServiceInfo) -> None:
        try:
            await info.async_request(zeroconf, ANSWER_MS)
        except Error:
            info.server = None

    await asyncio.gather(*map(answer, infos))


def _is_host(info: ServiceInfo) -> bool:
    """Whether it named a host, by a name that ssh may be given."""
    host = (info.server or "").rstrip(".")
    return len(host) <= LONGEST_HOST and re.fullmatch(HOST, host) is not None


def _add(hosts: dict[str, Found], kind: str, info: ServiceInfo) -> None:
    host = (info.server or "").rstrip(".")
    found = hosts.setdefault(host, Found(host))
    found.addresses = sorted({*found.addresses, *info.parsed_scoped_addresses()})[:MOST_TOLD]
    if kind == OURS:
        told = islice(info.properties.items(), MOST_TOLD)
        found.release = {_plain(key): _plain(value or b"") for key, value in told}
        found.port = info.port or SSH_PORT
    elif kind.startswith("_ssh") and not found.release:
        found.port = info.port or SSH_PORT


def _plain(told: bytes) -> str:
    """As text that a terminal only shows, on one line."""
    text = told.decode("utf-8", "replace")[:LONGEST]
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
