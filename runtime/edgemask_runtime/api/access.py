"""What a door needs before it opens: an address, and away from loopback TLS and a way to know who asks."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgemask_runtime.addresses import SHAPE, Address
from edgemask_runtime.api.guard import LOOPBACK_NAMES, Guard, read_token
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import read_bytes
from edgemask_runtime.settings import DoorSettings, door_faults

MAX_PEM_BYTES = 1 << 20
EVERYBODY = 0o007
HINT = "certificate and private_key for TLS, and token_file or client_ca; or listen on 127.0.0.1"


@dataclass(frozen=True)
class Tls:
    """The files of a TLS server, checked: they are what they are called and belong together."""

    certificate: Path
    private_key: Path
    client_ca: Path | None

    def context(self) -> ssl.SSLContext:
        """For HTTP: TLS 1.2 or later."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        pair = f"{self.certificate} and {self.private_key}"
        _loaded(pair, lambda: context.load_cert_chain(self.certificate, self.private_key))
        if self.client_ca:
            authority = self.client_ca
            _loaded(str(authority), lambda: context.load_verify_locations(authority))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def pem(self) -> tuple[bytes, bytes, bytes | None]:
        """Key, certificate and the clients' authority, for gRPC."""
        files = (self.private_key, self.certificate, self.client_ca)
        key, certificate, authority = (read_bytes(path, limit_bytes=MAX_PEM_BYTES) if path else b"" for path in files)
        return key, certificate, authority or None


@dataclass(frozen=True)
class Access:
    """A door's settings, checked."""

    address: Address
    tls: Tls | None
    guard: Guard


def check_access(door: DoorSettings) -> Access:
    """Read and check all that the settings name; UserError when the door may not open."""
    try:
        address = Address.parse(door.listen)
    except ValueError as error:
        raise UserError(f"{door.listen}: {error}", SHAPE) from error
    # Why again: a door can be opened without a file of settings, which would have been checked.
    for fault in door_faults(door):
        raise UserError(f"{door.listen}: {fault.sentence}", HINT)
    tls = _tls(door)
    token = read_token(door.token_file) if door.token_file else None
    return Access(address, tls, Guard(LOOPBACK_NAMES if address.is_loopback else None, token))


def _tls(door: DoorSettings) -> Tls | None:
    if not (door.certificate and door.private_key):
        return None
    tls = Tls(door.certificate, door.private_key, door.client_ca)
    tls.context()
    if door.private_key.stat().st_mode & EVERYBODY:
        raise UserError(f"{door.private_key}: everybody may read this key", hint=f"chmod 600 {door.private_key}")
    return tls


def _loaded(files: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise UserError(f"{files}: no certificate in PEM, or not this key's: {one_line(error)}", HINT) from error
    except OSError as error:
        raise UserError(f"{files}: cannot read: {error.strerror}") from error
