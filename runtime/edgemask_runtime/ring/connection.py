"""One client's connection to a ring: its memory, its requests and their answers."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from itertools import count, islice

import numpy as np

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.engines.tensors import Array
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.ring.memory import new_memory
from edgemask_runtime.ring.patience import Patience
from edgemask_runtime.ring.protocol import (
    ANSWER,
    ATTACH,
    GOING,
    MAGIC,
    MAX_PACKET_BYTES,
    NO_ENTROPY,
    OK,
    REQUEST,
    VERSION,
    Layout,
    Welcome,
    frames_in,
    places,
    told,
)

_TIMEOUT = struct.Struct("@ll")
DOWN = "start the daemon, or ask again in a moment"


class Moved(Exception):
    """The server ends in order: what it has not answered it did not run; another one takes it."""


class Memory:
    """Frames and outputs of a client, to be shared with a server."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.descriptor = new_memory("edgemask-ring", layout.memory_bytes)
        self.map = mmap.mmap(self.descriptor, layout.memory_bytes)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Connection:
    """A connected socket, greeted and given memory; for one thread at a time.

    `memory` is that of an earlier connection, used again if it fits; `about` spares reading what is known; with
    `patience` short waits are spent awake.
    UserError: a server that refuses, or none of a ring; ModelDown: it went, or did not answer in `timeout_s`.
    """

    def __init__(
        self,
        connected: socket.socket,
        *,
        rows: int = 1,
        slots: int = 1,
        timeout_s: float = 10.0,
        memory: Memory | None = None,
        about: About | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._socket, self._timeout_s, self._numbers = connected, timeout_s, count(1)
        self.timed_out, self._patience = False, patience
        limit_waiting(connected, timeout_s)
        try:
            welcome, self.about = self._greeted(about)
            self.max_rows = welcome.max_rows
            layout = Layout(slots, welcome.batch or rows, welcome.frame_bytes, welcome.output_bytes)
            if not welcome.allows(layout):
                raise UserError(f"{slots} slots of {rows} rows are not to be had", f"1 to {welcome.max_rows} rows")
            self.memory = memory if memory and memory.layout == layout else Memory(layout)
            self._attach()
        except BaseException:
            connected.close()
            raise

    def send(self, slot: int, rows: int) -> int:
        """Ask for the outputs of the slot's first `rows` frames; the number is that of the answer."""
        number = next(self._numbers)
        try:
            self._socket.send(REQUEST.pack(number, slot, rows))
        except OSError as error:
            # Why read: a server that went in order said so before it closed.
            self._packet()
            raise _lost() from error
        return number

    def receive(self, number: int) -> Outputs:
        """Copies of the outputs that request `number` gave; UserError when it failed, Moved when it was not run.

        Answers come in the order of the requests.
        """
        packet = self._packet()
        given, _, _ = ANSWER.unpack_from(packet)
        if given != number:
            self.close()
            raise UserError(f"the answer is that of request {given}, not of {number}", "connect again")
        return self._copied(packet)

    def infer(self, rows: int) -> Outputs:
        """The outputs of the first slot's frames."""
        return self.receive(self.send(0, rows))

    def fill(self, frames: Pixels) -> int:
        """Copy the frame or the frames into the first slot and say how many there are; UserError unless they fit."""
        place = self.frames[0]
        given = frames[np.newaxis] if frames.ndim == place.ndim - 1 else frames
        if given.dtype != np.uint8 or given.shape[1:] != place.shape[1:] or not 1 <= len(given) <= len(place):
            allowed = f"uint8 {list(place.shape[1:])}, or up to {len(place)} of them"
            raise UserError(f"frames of {frames.dtype} {list(frames.shape)}", f"the model takes {allowed}")
        place[: len(given)] = given
        return len(given)

    def close(self) -> None:
        """End the connection; views of the memory stay valid, but nobody reads them any more."""
        self._socket.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, by us or because the server went."""
        return self._socket.fileno() < 0

    def _greeted(self, about: About | None) -> tuple[Welcome, About]:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise _lost(self._timeout_s if isinstance(error, BlockingIOError) else None) from error
        try:
            if packet[:4] != MAGIC:
                _check(packet)
            welcome = Welcome.unpack(packet)
            if not descriptors:
                raise UserError("the server sends no description of its model", "install the daemon again")
            text = "" if about else os.pread(descriptors[0], welcome.about_bytes, 0).decode()
            return welcome, about or About.from_json(text, "the ring's model")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _attach(self) -> None:
        layout = self.memory.layout
        message = ATTACH.pack(MAGIC, VERSION, layout.slots, layout.rows)
        try:
            socket.send_fds(self._socket, [message], [self.memory.descriptor])
        except OSError as error:
            raise _lost() from error
        self._packet()
        outputs = self.about.manifest.outputs
        self._outputs = [(record.name, np.dtype(record.dtype), len(record.shape)) for record in outputs]
        self._places = places(outputs)
        shape = self.about.manifest.frame.shape
        self.frames = tuple(frames_in(self.memory.map, layout, slot, shape) for slot in range(layout.slots))

    def _packet(self) -> bytes:
        """The next answer that is OK."""
        try:
            packet = self._received()
        except OSError as error:
            self.close()
            self.timed_out = isinstance(error, BlockingIOError)
            raise _lost(self._timeout_s if self.timed_out else None) from error
        if not packet or packet[8] == GOING:
            self.close()
        _check(packet)
        return packet

    def _received(self) -> bytes:
        try:
            return self._patience.wait(self._looked, self._slept) if self._patience else self._slept()
        except ConnectionResetError:
            # Why again: the reset of a request that nobody read comes before the words of who did not read it.
            return self._slept()

    def _slept(self) -> bytes:
        return self._socket.recv(MAX_PACKET_BYTES)

    def _looked(self) -> bytes | None:
        try:
            return self._socket.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _copied(self, packet: bytes) -> Outputs:
        fields = iter(self._places.unpack_from(packet, ANSWER.size))
        copies: dict[str, Array] = {}
        for name, kind, axes in self._outputs:
            at, shape = next(fields), tuple(islice(fields, axes))
            copies[name] = np.ndarray(shape, kind, self.memory.map, at).copy()
        return Outputs(copies, self.about)


def limit_waiting(connected: socket.socket, seconds: float) -> None:
    """Let a blocking call end in BlockingIOError after this time; unlike `settimeout` this costs no further call."""
    limit = _TIMEOUT.pack(int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, limit)


def _check(packet: bytes) -> None:
    """Raise what an answer says that is not OK."""
    if len(packet) < ANSWER.size:
        raise _lost()
    _, status, _ = ANSWER.unpack_from(packet)
    if status == GOING:
        raise Moved
    if status != OK:
        kind = NoEntropy if status == NO_ENTROPY else UserError
        raise kind(*told(packet[ANSWER.size :]))


def _lost(after_s: float | None = None) -> ModelDown:
    if after_s is not None:
        return ModelDown(f"the model did not answer in {after_s:g} s", DOWN)
    return ModelDown("the model's process went away", DOWN)
