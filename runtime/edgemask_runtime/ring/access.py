"""The socket of the local fast path: who may connect, by the file's rights and by what the kernel says of the peer."""

from __future__ import annotations

import grp
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from edgemask_runtime.errors import UserError

OWNER_ONLY, OWNER_AND_GROUP = 0o600, 0o660
MAX_PATH_BYTES = 107
BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")


def listen(path: Path, group: str | None = None) -> socket.socket:
    """A socket at `path` for this user and root alone, or for the members of `group` too; UserError when it cannot be.

    What an earlier daemon left there is removed; a socket that still answers is not.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise UserError(f"{path}: longer than the {MAX_PATH_BYTES} bytes of a socket's name")
    owner = -1 if group is None else _group_id(group)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        # Why before bind: Linux gives the file the socket's own rights, so nobody can connect in between.
        os.fchmod(listener.fileno(), OWNER_ONLY)
        listener.bind(os.fspath(path))
        if group is not None:
            os.chown(path, -1, owner)
            path.chmod(OWNER_AND_GROUP)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(f"{path}: cannot listen: {error.strerror}", "check the folder and its rights") from error
    return listener


def may_connect(peer: socket.socket, group_id: int | None) -> bool:
    """Whether the process at the other end runs as this user, as root, or as a member of the group."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, primary = _CREDENTIALS.unpack(raw)
    return user in (0, os.geteuid()) or (group_id is not None and group_id in (primary, *_groups(peer)))


def group_of(listener: socket.socket) -> int | None:
    """The group that the socket's file is for; None when it is for its owner alone."""
    found = Path(os.fsdecode(listener.getsockname())).stat()
    return found.st_gid if found.st_mode & stat.S_IRWXG else None


def _groups(peer: socket.socket) -> tuple[int, ...]:
    # Why the number: Python 3.10 has no name for it. Older kernels than 4.13 do not have it either.
    peer_groups = getattr(socket, "SO_PEERGROUPS", 59)
    with suppress(OSError):
        raw = peer.getsockopt(socket.SOL_SOCKET, peer_groups, 4 * 256)
        return struct.unpack(f"{len(raw) // 4}I", raw)
    return ()


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise UserError(f"no group {group!r} on this machine", f"sudo groupadd {group}") from error


def _remove_stale(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UserError(f"{path}: there is a file already, and it is no socket", "choose another name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.setblocking(False)
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except OSError:
                pass
        raise UserError(f"{path}: another program listens there", "stop it, or choose another name")
