"""Frames from another process on this machine, over a Unix socket and shared memory."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgemask_runtime import unix
from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.handover import Handover
from edgemask_runtime.errors import UserError
from edgemask_runtime.frames import Shot
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

ROOT = 0


@dataclass(frozen=True)
class SocketSettings:
    """Where the producer listens, as whom it may run besides root and this user, and how long it may be silent."""

    path: Path
    user: str | None = None
    timeout_s: float = field(default=5.0, metadata=between(0.1, 60))


class SocketCamera:
    """Connects to a producer that listens; what it offers goes into the graph without a copy where it fits."""

    Settings = SocketSettings
    live = True
    fps = 0.0

    def __init__(self, settings: SocketSettings, frame: FrameInput) -> None:
        allowed = {ROOT, os.geteuid(), *([_user_id(settings.user)] if settings.user else [])}
        connected = _connected(settings, allowed)
        self._handover = Handover(connected, settings.path.name, frame.format, settings.timeout_s)

    def __iter__(self) -> Iterator[Shot]:
        """Give each frame that is offered."""
        yield from self._handover

    def close(self) -> None:
        """End the iteration and let go of the producer."""
        self._handover.close()

    @property
    def lost(self) -> int:
        """Frames that the producer numbered and did not offer."""
        return self._handover.lost


def _connected(settings: SocketSettings, allowed: set[int]) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connected.settimeout(settings.timeout_s)
    try:
        connected.connect(os.fspath(settings.path))
        owner = unix.peer_of(connected).user
    except OSError as error:
        connected.close()
        raise SourceLost(f"{settings.path}: nobody offers frames here: {error.strerror or error}") from error
    if owner not in allowed:
        connected.close()
        raise UserError(
            f"{settings.path}: user {owner} offers frames here", hint="user = NAME in the settings allows it"
        )
    return connected


def _user_id(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise UserError(f"no user {name!r} on this machine") from error
