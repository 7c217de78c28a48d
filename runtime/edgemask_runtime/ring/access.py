"""The socket of the local fast path: who may connect, by the file's rights and by what the kernel says of the peer."""

from __future__ import annotations

import grp
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from edgemask_runtime import unix
from edgemask_runtime.errors import UserError

OWNER_AND_GROUP = 0o660


def listen(path: Path, group: str | None = None) -> socket.socket:
    """A socket at `path` for this user and root alone, or for the members of `group` too; UserError when it cannot be.

    What an earlier daemon left there is removed; a socket that still answers is not.
    """
    if group is None:
        return unix.listen(path, socket.SOCK_SEQPACKET, mode=unix.OWNER_ONLY)
    return unix.listen(path, socket.SOCK_SEQPACKET, mode=OWNER_AND_GROUP, group=_group_id(group))


def may_connect(peer: socket.socket, group_id: int | None) -> bool:
    """Whether the process at the other end runs as this user, as root, or as a member of the group."""
    _, user, primary = unix.peer_of(peer)
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
