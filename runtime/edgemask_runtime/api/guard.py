"""Who may ask: a web page on another site may not, and away from loopback only who has the token."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes
from edgemask_runtime.keys import check_owner_only

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.IGNORECASE)
MIN_TOKEN_CHARS, MAX_TOKEN_BYTES = 16, 4096
TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]+")


class Guard:
    """Checks the headers of every request, their names in small letters.

    `hosts`: the names under which the server may be asked, None for any; a page that resolves its own name to this
    machine (DNS rebinding) asks under another.
    """

    def __init__(self, hosts: frozenset[str] | None = LOOPBACK_NAMES, token: bytes | None = None) -> None:
        self._hosts, self._token = hosts, token

    def check(self, headers: Mapping[bytes, bytes], *, is_open: bool = False) -> None:
        """RequestError unless the request may be answered; what `is_open` needs no token."""
        host = headers.get(b"host", b"").decode("latin-1")
        name = HOST.fullmatch(host)
        if self._hosts is not None and host and (name is None or name[1].lower() not in self._hosts):
            raise RequestError(403, f"host {host[:80]!r} is not this machine; ask for 127.0.0.1 or localhost")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.split("://")[-1] != host:
            raise RequestError(403, f"pages of {origin[:80]!r} may not ask here")
        if not is_open:
            self.check_token(headers.get(b"authorization", b""))

    def check_token(self, authorization: bytes) -> None:
        """RequestError unless there is no token, or this is it."""
        if self._token is not None and not hmac.compare_digest(authorization, b"Bearer " + self._token):
            raise RequestError(401, "this needs the header 'Authorization: Bearer TOKEN'")


def read_token(path: Path) -> bytes:
    """The token in a file; UserError unless it is one, and its owner's alone."""
    token = read_bytes(path, limit_bytes=MAX_TOKEN_BYTES).strip()
    check_owner_only(path, "read this token")
    if len(token) < MIN_TOKEN_CHARS or not TOKEN.fullmatch(token):
        hint = f"openssl rand -hex 32 > {path}"
        raise UserError(f"{path}: no token: {MIN_TOKEN_CHARS} or more letters, digits and . _ ~ + / = -", hint)
    return token
