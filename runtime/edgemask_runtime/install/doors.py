"""Where the daemon's HTTP server can be asked, as the settings in force say now: their owner may have moved it."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

from edgemask_runtime.addresses import Address
from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.slots import Door, Slot

MAX_BYTES = 1 << 20


def door_now(layout: Layout, slot: Slot) -> Door | None:
    """The door that the settings name; where they cannot be read, the one that the warm-up of the slot found."""
    completed = slot.completed()
    try:
        http = _settings(layout).get("http")
        return door_of(http["listen"], tls="certificate" in http, certified="client_ca" in http) if http else None
    except (UserError, ImportError, ValueError, TypeError, KeyError, AttributeError):
        return completed.warm.door if completed else None


def door_of(listen: str, *, tls: bool, certified: bool) -> Door | None:
    """How this machine can ask a server that listens there; None where its port is not known."""
    address = Address.parse(listen)
    if address.port == 0:
        return None
    host = ipaddress.ip_address(address.host)
    loopback = "::1" if host.version == 6 else "127.0.0.1"
    return Door(loopback if host.is_unspecified else address.host, address.port, tls, certified)


def _settings(layout: Layout) -> dict[str, Any]:
    # Why not the daemon's own reader: it imports cameras and sinks, and a bare Python 3.10 has no TOML.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(read_bytes(layout.settings, limit_bytes=MAX_BYTES).decode())
