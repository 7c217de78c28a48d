"""The server of a ring: one thread, one request after another, each client by itself."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import UserError
from edgemask_runtime.predictor import Served
from edgemask_runtime.ring.access import group_of, may_connect
from edgemask_runtime.ring.guest import Guest, Held, Terms
from edgemask_runtime.ring.memory import sealed_copy
from edgemask_runtime.ring.patience import Patience
from edgemask_runtime.ring.protocol import ANSWER, FAILED, GOING, NO_ENTROPY, text_of, welcome

MAX_CLIENTS = 32
ATTACH_LIMIT_S = 10.0


class RingServer:
    """Serves one model to its clients. `turn` handles one event; whoever calls it is the only thread here.

    Of a client nothing is believed: frames are copied out of its memory before the engine sees them, places in it are
    computed and never read there, and one that breaks the protocol or does not take its answers is dropped alone.
    """

    def __init__(self, served: Served, alarmed: Callable[[NoEntropy], None] = lambda error: None) -> None:
        """`alarmed` is told each time that the random source fails a request."""
        self._alarmed = alarmed
        text = served.about.to_json().encode()
        self._served = served
        self._about = sealed_copy("edgemask-about", text)
        self._terms = Terms(served.manifest, welcome(served.manifest, len(text)))
        self._private = np.empty((self._terms.welcome.max_rows, *self._terms.shape), np.uint8)
        self._guests: dict[int, Guest] = {}
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll, self._patience = select.epoll(), Patience()

    def watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call the handler in `turn` whenever the descriptor can be read."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer."""
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def listen(self, listener: socket.socket) -> None:
        """Take clients from a listening socket (`access.listen`)."""
        group = group_of(listener)
        self.watch(listener.fileno(), lambda: self._accept(listener, group))

    def adopt(self, connected: socket.socket) -> None:
        """Greet a client that is connected already; the number of these is their giver's concern."""
        self._greet(Guest(connected, self._terms))

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait for one event and handle it; clients that have something to say take turns."""
        # Why one event: the kernel puts whoever was served behind the others.
        events = self._patience.wait(lambda: self._poll.poll(0, 1), lambda: self._poll.poll(timeout_s, 1))
        for descriptor, _ in events:
            self._handlers[descriptor]()

    def close(self) -> None:
        """Tell all clients that the server goes, so that they ask another one; nothing is under way now."""
        for guest in list(self._guests.values()):
            with suppress(OSError):
                guest.socket.send(ANSWER.pack(0, GOING, 0))
            self._drop(guest)
        self._poll.close()
        os.close(self._about)

    def _greet(self, guest: Guest) -> None:
        connected = guest.socket
        connected.setblocking(False)
        self._guests[connected.fileno()] = guest
        self.watch(connected.fileno(), lambda: self._serve(guest))
        try:
            socket.send_fds(connected, [self._terms.welcome.pack()], [self._about])
        except OSError:
            self._drop(guest)

    def _has_room(self) -> bool:
        """Whether one more local client may come; those who said nothing for long make room."""
        local = [guest for guest in self._guests.values() if guest.local]
        latest_s = time.monotonic() - ATTACH_LIMIT_S
        silent = [guest for guest in local if not guest.held and guest.since_s < latest_s]
        for guest in silent if len(local) >= MAX_CLIENTS else []:
            self._drop(guest)
            local.remove(guest)
        return len(local) < MAX_CLIENTS

    def _accept(self, listener: socket.socket, group: int | None) -> None:
        try:
            connected, _ = listener.accept()
        except OSError:
            # Another worker that listens there too was faster, or the client is gone again.
            return
        guest = Guest(connected, self._terms, local=True)
        if not may_connect(connected, group):
            self._end(guest, UserError("this user may not use the model", "the daemon's settings name who may"))
        elif not self._has_room():
            self._end(guest, UserError(f"{MAX_CLIENTS} clients are connected already", "close one of them"))
        else:
            self._greet(guest)

    def _serve(self, guest: Guest) -> None:
        try:
            reply = self._answer(guest, guest.held) if guest.held else guest.attach()
            if reply is None:
                self._drop(guest)
            else:
                guest.socket.send(reply)
        except UserError as error:
            self._end(guest, error)
        except OSError:
            # It is gone, or it does not take its answers: there is room for many.
            self._drop(guest)

    def _answer(self, guest: Guest, held: Held) -> bytes | None:
        request = guest.request(held)
        if request is None:
            return None
        # Why a copy: the client could change the frame between the detector's look at it and the model's.
        frames = self._private[: request.rows]
        np.copyto(frames, held.frames[request.slot][: request.rows])
        try:
            return guest.answer(held, request, self._served.predict(frames))
        except NoEntropy as error:
            self._alarmed(error)
            return ANSWER.pack(request.number, NO_ENTROPY, 0) + text_of(error)
        except UserError as error:
            return ANSWER.pack(request.number, FAILED, 0) + text_of(error)

    def _end(self, guest: Guest, error: UserError) -> None:
        """Tell a client why, and drop it."""
        with suppress(OSError):
            guest.socket.send(ANSWER.pack(0, FAILED, 0) + text_of(error))
        self._drop(guest)

    def _drop(self, guest: Guest) -> None:
        self.forget(guest.socket.fileno())
        self._guests.pop(guest.socket.fileno(), None)
        guest.close()
