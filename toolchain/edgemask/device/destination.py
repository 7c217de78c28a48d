"""Where a device is, as people write it behind `ssh`: a name of ~/.ssh/config, user@host, ssh://user@host:port."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from edgemask.errors import UserError

# Why so few signs: ssh puts both into the commands of ProxyCommand and Match exec, and a dash makes an option of them.
HOST = r"[A-Za-z0-9_][A-Za-z0-9._:%-]*"
USER = r"[A-Za-z0-9_][A-Za-z0-9._@+-]*"
CONFIG = Path(".ssh") / "config"
DEEPEST_INCLUDE = 4


@dataclass(frozen=True)
class Destination:
    """A host, and what was said of its user and port; ~/.ssh/config says the rest."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read `board`, `pi@board.local` or `ssh://pi@board:2222`; UserError for anything else."""
        if text.startswith("ssh://"):
            return _from_url(text)
        user, at, host = text.rpartition("@")
        return _checked(text, host, user if at else None, None)

    @property
    def arguments(self) -> list[str]:
        """What ssh is called with to get there."""
        port = ["-p", str(self.port)] if self.port is not None else []
        user = ["-l", self.user] if self.user is not None else []
        return [*port, *user, "--", self.host]

    @property
    def command(self) -> str:
        """What people type to try it themselves."""
        port = ["-p", str(self.port)] if self.port is not None else []
        return shlex.join(["ssh", *port, self.login])

    @property
    def login(self) -> str:
        """`user@host`, or the host alone."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = host if self.user is None else f"{self.user}@{host}"
        return self.login if self.port is None else f"ssh://{login}:{self.port}"


def known_names(config: Path | None = None) -> list[str]:
    """The hosts that a configuration of ssh, ~/.ssh/config if none is given, names without a pattern."""
    return sorted(set(_names(config or Path.home() / CONFIG, 0)))


def _names(config: Path, depth: int) -> Iterator[str]:
    try:
        lines = config.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, *words = line.replace("=", " ", 1).replace('"', "").split() or [""]
        if keyword.lower() == "host":
            yield from (word for word in words if re.fullmatch(HOST, word))
        elif keyword.lower() == "include" and depth < DEEPEST_INCLUDE:
            for pattern in words:
                yield from _included(pattern, depth)


def _included(pattern: str, depth: int) -> Iterator[str]:
    # Relative names are those of the user's folder, whichever file includes them.
    whole = Path.home() / CONFIG.parent / Path(pattern).expanduser()
    for path in sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))):
        yield from _names(path, depth + 1)


def _from_url(text: str) -> Destination:
    parts = urlsplit(text)
    if parts.password is not None:
        raise _wrong(text, "a password in an address is seen by everybody on this machine; ssh asks for it")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _wrong(text, "nothing may follow the host and its port")
    user = None if parts.username is None else unquote(parts.username)
    return _checked(text, unquote(parts.hostname or ""), user, _port(text, parts))


def _port(text: str, parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _wrong(text, "a port is a number from 1 to 65535")
    return port


def _checked(text: str, host: str, user: str | None, port: int | None) -> Destination:
    if not re.fullmatch(HOST, host):
        raise _wrong(text, f"{host!r} is no name of a host")
    if user is not None and not re.fullmatch(USER, user):
        raise _wrong(text, f"{user!r} is no name of a user")
    return Destination(host, user, port)


def _wrong(text: str, reason: str) -> UserError:
    allowed = "allowed: ssh://user@host:port, user@host, or a name in ~/.ssh/config; `edgemask devices` looks for some"
    return UserError(f"{text!r} is no device: {reason}", allowed)
