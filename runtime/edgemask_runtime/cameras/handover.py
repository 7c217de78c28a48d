"""Frames that another process offers: it hands over sealed memory once, and then slots of it by number."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from select import POLLIN, poll
from threading import Lock
from typing import Any

from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.conversion import converter
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format, Pixels, problems
from edgemask_runtime.frames import Shot
from edgemask_runtime.ring.memory import map_checked
from edgemask_runtime.strict_json import Faults, between, parse, structure

VERSION, MAX_SLOTS = 1, 64
MAX_PACKET_BYTES = 1 << 16
FRAME, FREE = struct.Struct("<4sIQq"), struct.Struct("<4sI")
FRAME_MARK, FREE_MARK = b"FRAM", b"FREE"


@dataclass(frozen=True, kw_only=True)
class Offer(Format):
    """What a producer says of its frames, and in how many slots of memory they come."""

    version: int = field(metadata=between(VERSION, VERSION))
    slots: int = field(metadata=between(2, MAX_SLOTS))

    @property
    def slot_bytes(self) -> int:
        """The bytes of a frame."""
        rows, *columns = self.shape
        return rows * self.row_bytes if len(columns) > 1 else rows * columns[0]


class Handover:
    """A connected producer; its frames are views of its memory, which it leaves alone until they are released.

    SourceLost when it goes, is silent, or says anything that it may not.
    """

    def __init__(self, connected: socket.socket, where: str, frame: Format, timeout_s: float, **options: Any) -> None:
        self._socket, self._where, self._frame, self._timeout_s = connected, where, frame.settled(), timeout_s
        self._lock, self._closed, self._waiting = Lock(), False, False
        self._held: set[int] = set()
        self._accepted: tuple[Offer, memoryview] | None = None
        self._greeting = json.dumps({**asdict(self._frame), "version": VERSION, "options": options}).encode()
        self.lost = 0

    def __iter__(self) -> Iterator[Shot]:
        """Give each frame that is offered; its slot goes back when it is released."""
        if self._accepted is None:
            self.open()
        if self._accepted is None:
            return
        offer, memory = self._accepted
        read = converter(_format(offer), self._frame)
        expected: int | None = None
        while (packet := self._received()[0]) is not None:
            slot, number, captured_ns = self._offered(packet, offer)
            self.lost += 0 if expected is None else max(0, number - expected)
            expected = number + 1
            view = memory[slot * offer.slot_bytes : (slot + 1) * offer.slot_bytes]
            yield Shot(
                f"{self._where}#{number}",
                partial(_read, read, view),
                captured_ns if captured_ns >= 0 else None,
                partial(self._release, slot),
            )

    def open(self) -> None:
        """Wait for the offer, or for `close`."""
        self._send(self._greeting)
        packet, descriptors = self._received()
        if packet is not None:
            self._accepted = self._checked(packet, descriptors)

    def close(self) -> None:
        """End the iteration and let go of the producer."""
        with self._lock:
            if not self._closed and self._waiting:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            elif not self._closed:
                self._socket.close()
            self._closed = True

    def answer(self) -> str:
        """The text that a producer answers instead of frames, when it is only asked something."""
        self._send(self._greeting)
        packet, _ = self._received()
        return str(self._parsed(packet or b"{}").get("error", ""))

    def _received(self) -> tuple[bytes | None, list[int]]:
        """The next packet; None after `close`."""
        with self._lock:
            if self._closed:
                return None, []
            self._waiting = True
        ready = self._waited()
        with self._lock:
            self._waiting = False
            if self._closed:
                self._socket.close()
                return None, []
        if not ready:
            raise SourceLost(f"{self._where}: no frame for {self._timeout_s:g} s")
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            raise SourceLost(f"{self._where}: whoever offered frames is gone")
        return packet, descriptors

    def _waited(self) -> bool:
        waiting = poll()
        waiting.register(self._socket, POLLIN)
        return bool(waiting.poll(self._timeout_s * 1000))

    def _checked(self, packet: bytes, descriptors: list[int]) -> tuple[Offer, memoryview]:
        try:
            faults, said = Faults(self._where), self._parsed(packet)
            if "error" in said:
                self._complain(packet)
            offer: Offer | None = structure(Offer, said, "$", faults)
            for name, allowed in problems(offer) if offer else ():
                faults.add(f"$.{name}", "does not fit", allowed=allowed)
            if offer is None or faults:
                raise faults.error("docs/cameras.md says what a producer offers")
            if not descriptors:
                raise UserError(f"{self._where}: no memory came with the offer")
            return offer, memoryview(map_checked(descriptors[0], offer.slots * offer.slot_bytes))
        except SourceLost:
            raise
        except UserError as error:
            raise SourceLost(error.message, error.hint) from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _parsed(self, packet: bytes) -> dict[str, Any]:
        found = parse(packet.decode(errors="replace"), self._where)
        if not isinstance(found, dict):
            raise SourceLost(f"{self._where}: no offer of frames")
        return found

    def _offered(self, packet: bytes, offer: Offer) -> tuple[int, int, int]:
        if len(packet) != FRAME.size or packet[:4] != FRAME_MARK:
            self._complain(packet)
        _, slot, number, captured_ns = FRAME.unpack(packet)
        with self._lock:
            if slot >= offer.slots or slot in self._held:
                raise SourceLost(f"{self._where}: offers slot {slot}, which it has not or gave away")
            self._held.add(slot)
        return slot, number, captured_ns

    def _complain(self, packet: bytes) -> None:
        said = self._parsed(packet) if packet[:1] == b"{" else {}
        raise SourceLost(f"{self._where}: {said.get('error', 'says what is no frame')}", said.get("hint"))

    def _release(self, slot: int) -> None:
        with self._lock:
            self._held.discard(slot)
            if not self._closed:
                self._send(FREE.pack(FREE_MARK, slot))

    def _send(self, packet: bytes) -> None:
        # What a producer does not read it has lost: it has no slot then, gives nothing and is let go for that.
        try:
            self._socket.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return


def _format(offer: Offer) -> Format:
    return Format(offer.width, offer.height, offer.colour, offer.stride, offer.matrix, offer.range)


def _read(read: Any, view: memoryview) -> Pixels:
    pixels: Pixels = read(view)
    return pixels
