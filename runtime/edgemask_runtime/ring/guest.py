"""One client as the server of a ring has it: nothing that comes from it is believed."""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgemask_runtime.engines.tensors import Array
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.ring.memory import map_checked
from edgemask_runtime.ring.protocol import (
    ANSWER,
    ATTACH,
    MAGIC,
    OK,
    REQUEST,
    VERSION,
    Layout,
    Welcome,
    aligned,
    frames_in,
    places,
)


class Rejected(UserError):
    """What a client did that ends its connection."""


class Request(NamedTuple):
    """A checked request."""

    number: int
    slot: int
    rows: int


class Terms:
    """What all clients of a model are held to."""

    def __init__(self, manifest: Manifest, welcome: Welcome) -> None:
        self.welcome, self.shape = welcome, manifest.frame.shape
        self.outputs = [(record.name, np.dtype(record.dtype), len(record.shape)) for record in manifest.outputs]
        self.places = places(manifest.outputs)

    def layout(self, message: bytes) -> Layout:
        """The layout that a client's first message asks for."""
        if len(message) != ATTACH.size:
            raise Rejected(f"the first message has {len(message)} bytes, not {ATTACH.size}")
        magic, version, slots, rows = ATTACH.unpack(message)
        if magic != MAGIC or version != VERSION:
            raise Rejected(f"version {VERSION} of the ring is spoken here")
        layout = Layout(slots, rows, self.welcome.frame_bytes, self.welcome.output_bytes)
        if not self.welcome.allows(layout):
            raise Rejected(f"{slots} slots of {rows} rows are not to be had")
        return layout


class Held(NamedTuple):
    """The memory that a client gave, checked, and its frames, [rows, ...] a slot."""

    layout: Layout
    memory: mmap.mmap
    frames: tuple[Pixels, ...]


class Guest:
    """A client: its socket, and the memory that it gave."""

    def __init__(self, connected: socket.socket, terms: Terms, *, local: bool = False) -> None:
        self.socket, self._terms, self.local = connected, terms, local
        self.since_s = time.monotonic()
        self.held: Held | None = None

    def attach(self) -> bytes | None:
        """Take its memory and return the reply; None when it is gone."""
        message, descriptors, _, _ = socket.recv_fds(self.socket, ATTACH.size + 1, 1, socket.MSG_CMSG_CLOEXEC)
        try:
            if not message:
                return None
            layout = self._terms.layout(message)
            if not descriptors:
                raise Rejected("no memory came with the first message")
            memory = map_checked(descriptors[0], layout.memory_bytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        frames = tuple(frames_in(memory, layout, slot, self._terms.shape) for slot in range(layout.slots))
        self.held = Held(layout, memory, frames)
        return ANSWER.pack(0, OK, 0)

    def request(self, held: Held) -> Request | None:
        """Its next request; None when it is gone."""
        message = self.socket.recv(REQUEST.size + 1)
        if not message:
            return None
        if len(message) != REQUEST.size:
            raise Rejected(f"a request has {len(message)} bytes, not {REQUEST.size}")
        request = Request(*REQUEST.unpack(message))
        fewest = self._terms.welcome.batch or 1
        if request.slot >= held.layout.slots or not fewest <= request.rows <= held.layout.rows:
            raise Rejected(f"a request for {request.rows} rows of slot {request.slot}")
        return request

    def answer(self, held: Held, request: Request, outputs: Mapping[str, Array]) -> bytes:
        """Put the outputs where the client finds them and return the answer; UserError when they do not fit."""
        at, end = held.layout.outputs_at(request.slot), held.layout.frames_at(request.slot + 1)
        fields: list[int] = []
        for name, kind, axes in self._terms.outputs:
            value = outputs[name]
            if value.dtype != kind or value.ndim != axes or at + value.nbytes > end:
                raise UserError(f"output {name!r} is {value.dtype} {list(value.shape)}, which its slot does not hold")
            np.ndarray(value.shape, kind, held.memory, at)[...] = value
            fields += (at, *value.shape)
            at += aligned(value.nbytes)
        return ANSWER.pack(request.number, OK, request.rows) + self._terms.places.pack(*fields)

    def close(self) -> None:
        """End the connection and let go of the memory."""
        self.socket.close()
        self.held = None
