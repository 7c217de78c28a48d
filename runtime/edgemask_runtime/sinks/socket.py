"""Lines of JSON to whoever connects to a Unix socket."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgemask_runtime import unix
from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.sinks import SinkContext
from edgemask_runtime.sinks.jsonl import invalid_line
from edgemask_runtime.strict_json import between, matching

BYTES_PER_KB = 1000

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class SocketSettings:
    """Where the socket lies, its rights in octal, how many may read, and how far one may lag before it is dropped."""

    path: Path
    mode: str = field(default="0660", metadata=matching("0[0-7]{3}"))
    max_readers: int = field(default=16, metadata=between(1, 1000))
    buffer_kb: int = field(default=64, metadata=between(4, 10_000))


class SocketLines:
    """A stream of lines for any number of readers, from the line after they connected on; nobody is waited for.

    There is no thread that accepts: the kernel keeps who connects until the next line, which is when it matters.
    """

    Settings = SocketSettings
    wants_pixels = False

    def __init__(self, settings: SocketSettings, context: SinkContext) -> None:
        self._settings, self._pipeline = settings, context.pipeline
        self._readers: list[socket.socket] = []
        self._listener = unix.listen(settings.path, socket.SOCK_STREAM, mode=int(settings.mode, 8))
        self._inode = settings.path.stat().st_ino

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Send the answer to every reader."""
        self._welcome()
        if self._readers:
            self._send(answer.to_json())

    def invalidate(self, reason: str) -> None:
        """Send a line that has a reason and no answer."""
        self._welcome()
        self._send(invalid_line(self._pipeline, reason))

    def close(self) -> None:
        """Hang up on the readers and take the socket away, if it is still ours."""
        for open_socket in (*self._readers, self._listener):
            open_socket.close()
        with suppress(OSError):
            if self._settings.path.stat().st_ino == self._inode:
                self._settings.path.unlink()

    def _welcome(self) -> None:
        try:
            while True:
                self._admit(self._listener.accept()[0])
        except BlockingIOError:
            return
        except OSError as error:
            raise UserError(f"{self._settings.path}: cannot take a reader: {error.strerror}") from error

    def _admit(self, reader: socket.socket) -> None:
        if len(self._readers) >= self._settings.max_readers:
            log.warning("%s: a reader is turned away: %d is the most", self._settings.path, len(self._readers))
            reader.close()
            return
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.buffer_kb * BYTES_PER_KB)
        self._readers.append(reader)

    def _send(self, line: str) -> None:
        data = f"{line}\n".encode()
        for reader in tuple(self._readers):
            if not self._took(reader, data):
                self._readers.remove(reader)
                reader.close()

    def _took(self, reader: socket.socket, data: bytes) -> bool:
        """Whether all of the line went out at once: half a line is of no use, and waiting is not for us."""
        try:
            taken = reader.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            taken = 0
        except OSError:
            return False
        if taken < len(data):
            log.warning("%s: a reader is dropped: it does not keep up", self._settings.path)
        return taken == len(data)
