"""The local fast path for Python programs: a model that runs in the daemon, without a copy of the frame on the way."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.answers import Reading
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.ring.connection import DOWN, Connection, Memory, Moved, limit_waiting
from edgemask_runtime.ring.patience import Patience

MAX_MOVES = 8
T = TypeVar("T")


class LocalModel:
    """A model of the daemon on this machine; for several threads, which take turns.

        with LocalModel.connect("/run/edgemask/driver-id.sock") as model:
            model.frame[:] = pixels
            print(model.read(model.infer()).top)

    Entropy and key are the daemon's own: nothing of them passes here. A reload of the model is followed unnoticed.
    """

    def __init__(self, path: Path, *, rows: int = 1, timeout_s: float = 10.0) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._turn, self._patience = Lock(), Patience()
        self._connection = _followed(lambda: self._opened(rows, None))
        self._memory = self._connection.memory
        self._frame = self.about.manifest.frame

    @classmethod
    def connect(cls, path: Path | str, *, rows: int = 1, timeout_s: float = 10.0) -> LocalModel:
        """Connect to the daemon's socket at `path`, for requests of up to `rows` frames.

        UserError: no such socket, no right to it, or the daemon refuses; ModelDown: no answer in `timeout_s`.
        """
        return cls(Path(path), rows=rows, timeout_s=timeout_s)

    @property
    def about(self) -> About:
        """The model that answered last: its manifest, the bundle's digest, the engine."""
        return self._connection.about

    @property
    def frames(self) -> Pixels:
        """The frames of the next request, uint8 [rows, ...], to be filled."""
        return self._connection.frames[0]

    @property
    def frame(self) -> Pixels:
        """The first of the frames."""
        first: Pixels = self.frames[0]
        return first

    def infer(self, frames: Pixels | None = None) -> Outputs:
        """Copies of all outputs: of the frame or the frames given, or else of what lies in `frames`.

        UserError: frames that do not fit, or the model fails on them. ModelDown: it is being restarted, ask again;
        after a time-out connect again.
        """
        with self._turn:
            rows = len(self.frames) if frames is None else self._connection.fill(frames)
            return _followed(lambda: self._live().infer(rows))

    def read(self, outputs: Outputs, row: int = 0) -> Reading:
        """What row `row` of the outputs means."""
        return outputs.read(row)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> Connection:
        """The connection, made anew if the model's process went; the frames stay where they are."""
        if self._connection.timed_out:
            raise ModelDown("an answer did not come in time, and may still come: connect again")
        if self._connection.closed:
            fresh = self._opened(self._memory.layout.rows, self._memory)
            if fresh.memory is not self._memory or fresh.about.manifest.frame != self._frame:
                fresh.close()
                raise UserError(f"{self._path}: another model is there now, of other frames", "connect again")
            self._connection = fresh
        return self._connection

    def _opened(self, rows: int, memory: Memory | None) -> Connection:
        connected = _connected(self._path, self._timeout_s)
        limit_s, patience = self._timeout_s, self._patience
        return Connection(connected, rows=rows, timeout_s=limit_s, memory=memory, patience=patience)


def _followed(ask: Callable[[], T]) -> T:
    """What `ask` gives, of the next server where one goes in order."""
    for _ in range(MAX_MOVES):
        with suppress(Moved):
            return ask()
    raise ModelDown("the model is exchanged again and again", DOWN)


def _connected(path: Path, timeout_s: float) -> socket.socket:
    fresh = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    limit_waiting(fresh, timeout_s)
    try:
        fresh.connect(os.fspath(path))
    except OSError as error:
        fresh.close()
        if isinstance(error, (ConnectionRefusedError, BlockingIOError)):
            raise ModelDown(f"{path}: no daemon answers there", DOWN) from error
        hint = "the daemon's settings name its sockets, and the group that may use them"
        raise UserError(f"{path}: cannot connect: {error.strerror}", hint) from error
    return fresh
