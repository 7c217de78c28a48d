"""Unix sockets: a listener in the place of a stale one, and who is at the other end."""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edgemask_runtime.errors import UserError

OWNER_ONLY = 0o600
MAX_PATH_BYTES = 107
_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """A process, its user and its first group, as the kernel knows them."""

    process: int
    user: int
    group: int


def peer_of(connected: socket.socket) -> Peer:
    """Who connected, or listened, at the other end."""
    return Peer(*_CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def listen(path: Path, kind: int, *, mode: int, group: int = -1) -> socket.socket:
    """A listener of that kind at `path`, which does not block; UserError when it cannot be.

    What an earlier process left there is removed; a socket that still answers is not.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise UserError(f"{path}: longer than a socket's path may be", hint=f"{MAX_PATH_BYTES} bytes at most")
    _remove_stale(path, kind)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        # Why before bind: Linux gives the file the socket's own rights, so nobody can connect in between.
        os.fchmod(listener.fileno(), OWNER_ONLY)
        listener.bind(os.fspath(path))
        os.chown(path, -1, group)
        path.chmod(mode)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(f"{path}: cannot listen: {error.strerror}", "check the folder and its rights") from error
    return listener


def _remove_stale(path: Path, kind: int) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UserError(f"{path}: there is a file already, and it is no socket", "choose another name")
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except OSError:
                pass
        raise UserError(f"{path}: another program listens here", "stop it, or choose another name")
