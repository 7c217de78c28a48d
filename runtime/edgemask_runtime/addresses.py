"""Where a server listens: HOST:PORT of an IP address."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

PATTERN = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})")
MAX_PORT = 65535
SHAPE = "HOST:PORT with an IP address, such as 127.0.0.1:8700 or [::1]:8700"


@dataclass(frozen=True)
class Address:
    """An IP address and a port; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT, where the host may be `localhost`; ValueError says what is wrong."""
        match = PATTERN.fullmatch(text)
        if match is None or int(match["port"]) > MAX_PORT:
            raise ValueError("not an address")
        host = "127.0.0.1" if match["host"] == "localhost" else match["v6"] or match["host"]
        try:
            return cls(str(ipaddress.ip_address(host)), int(match["port"]))
        except ValueError as error:
            raise ValueError(f"{host!r} is no IP address") from error

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        return ipaddress.ip_address(self.host).is_loopback


def is_address(text: str) -> bool:
    """Whether `Address.parse` reads it."""
    try:
        Address.parse(text)
    except ValueError:
        return False
    return True
