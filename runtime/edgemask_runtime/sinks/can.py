"""Answers on a CAN or CAN FD bus, at a fixed pace and whatever happens, as far as the recipe allows."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import can

from edgemask_runtime import sinks
from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError, one_line, unknown
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import NS_PER_MS
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.sinks.can_messages import (
    EXPIRED,
    FAILED,
    MODEL_DOWN,
    STALLED,
    STARTING,
    STOPPING,
    VALID,
    Encoder,
    State,
)
from edgemask_runtime.strict_json import between, matching

REOPEN_S = 2.0
"""A bus on which nothing went out for so long is opened anew: its adapter may have been unplugged."""
LOOK_S = 0.1
BUS_OFF = 0x40
"""The bit in an error frame's identifier (linux/can/error.h)."""
NOTHING = [{"can_id": 0, "can_mask": 0x1FFFFFFF, "extended": True}]
"""A filter for what we receive: error frames come in any case."""
REASONS = {
    sinks.ENDED: STOPPING,
    sinks.STOPPING: STOPPING,
    "the source": STALLED,
    "nothing newer": EXPIRED,
    "model down": MODEL_DOWN,
}
"""What the signal Validity says, by how a reason begins."""
IDLE_S = 1.0

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class CanSettings:
    """Which bus, and how fast; what is sent there is the bundle's business.

    `interface` is python-can's name of it. SocketCAN's bit rates are set with `ip link` and not here; `data_bitrate`
    also asks for the switch to it within frames of CAN FD. `period_ms` can only lengthen what the bundle states.
    """

    channel: str
    interface: str = field(default="socketcan", metadata=matching("[a-z0-9_]{1,40}"))
    bitrate: int | None = field(default=None, metadata=between(1, 1_000_000))
    data_bitrate: int | None = field(default=None, metadata=between(1, 12_000_000))
    period_ms: int | None = field(default=None, metadata=between(5, 10_000))


class Can:
    """Sends every allowed message once a period, from the first moment to the last: valid only with a fresh answer."""

    Settings = CanSettings
    wants_pixels = False

    def __init__(self, settings: CanSettings, context: sinks.SinkContext) -> None:
        if settings.interface not in can.VALID_INTERFACES:
            raise unknown("interface of python-can", settings.interface, can.VALID_INTERFACES)
        if not context.manifest.can:
            hint = "name them as [[runtime.can]] in the recipe, and build the bundle again"
            raise UserError(f"{context.manifest.name}: this bundle may send no message on a CAN bus", hint)
        self._settings, self._latest = settings, context.latest
        self._name = f"can {settings.interface} {settings.channel}"
        self._fault: str | None = None
        self._healthy_s = self._looked_s = time.monotonic()
        self._newest: Answer | None = None
        self._invalid = STARTING
        self._bus: Any = None
        self._adopt(context.manifest)
        self._stopping = Event()
        self._thread = Thread(target=self._keep_time, name=self._name, daemon=True)
        self._thread.start()

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Let the next frames tell this answer; Unreachable while nothing can be sent."""
        self._newest = answer
        if self._fault:
            raise sinks.Unreachable(f"{self._name}: {self._fault}")

    def invalidate(self, reason: str) -> None:
        """Let the next frames say that there is no answer."""
        self._invalid = next((word for start, word in REASONS.items() if reason.startswith(start)), FAILED)
        self._newest = None

    def close(self) -> None:
        """Send every message once more, as invalid, and let go of the bus."""
        self.invalidate(sinks.STOPPING)
        self._stopping.set()
        self._thread.join()

    def _adopt(self, manifest: Manifest) -> None:
        """Keep to what this bundle allows; its predecessor's answers are none of its own."""
        self._manifest, self._newest = manifest, None
        self._encoders = [Encoder(record, manifest.frame) for record in manifest.can]
        self._periods_s = [max(record.period_ms, self._settings.period_ms or 0) / 1000 for record in manifest.can]
        self._due_s = [time.monotonic()] * len(self._periods_s)
        self._reopen()

    def _keep_time(self) -> None:
        """Send on time, by the clock and not by pauses; a time that was missed is not made up for."""
        while not self._stopping.wait(max(0.0, min(self._due_s, default=IDLE_S) - time.monotonic())):
            manifest = self._latest()
            if _terms(manifest) != _terms(self._manifest):
                self._adopt(manifest)
            self._send_due()
            self._look_after()
        for encoder in self._encoders:
            self._send(encoder)
        self._shut()

    def _send_due(self) -> None:
        for index, encoder in enumerate(self._encoders):
            now_s, due_s, period_s = time.monotonic(), self._due_s[index], self._periods_s[index]
            if due_s <= now_s:
                self._send(encoder)
                self._due_s[index] += period_s * (1 + (now_s - due_s) // period_s)

    def _state(self) -> State:
        answer = self._newest
        if answer is None:
            return State(self._invalid)
        age_ms = (time.monotonic_ns() - answer.captured_ns) / NS_PER_MS
        return State(VALID, answer, age_ms) if age_ms <= self._manifest.max_age_ms else State(EXPIRED)

    def _send(self, encoder: Encoder) -> None:
        record, fast = encoder.record, self._settings.data_bitrate is not None
        for data in encoder.frames(self._state()):
            frame = can.Message(
                arbitration_id=record.id,
                is_extended_id=record.extended,
                is_fd=encoder.is_fd,
                bitrate_switch=encoder.is_fd and fast,
                data=data,
            )
            if not self._sent(frame):
                return

    def _sent(self, frame: can.Message) -> bool:
        """Whether the frame went out. A full queue is not waited for: what is in it would come late."""
        try:
            if self._bus is None:
                return False
            self._bus.send(frame, timeout=0)
        # The drivers of adapters raise nearly anything, and frames must go on.
        except Exception as error:
            self._failed(f"cannot send: {one_line(error)}")
            return False
        if self._fault:
            log.info("%s: sends again", self._name)
        self._fault, self._healthy_s = None, time.monotonic()
        return True

    def _look_after(self) -> None:
        """Now and then: note that the controller went off the bus; open it anew when nothing goes out for long."""
        now_s = time.monotonic()
        if now_s < self._looked_s + LOOK_S:
            return
        self._looked_s = now_s
        try:
            heard = self._bus.recv(0) if self._bus else None
        except Exception as error:
            self._failed(f"cannot receive: {one_line(error)}")
            heard = None
        if heard and heard.is_error_frame and heard.arbitration_id & BUS_OFF:
            self._failed("bus off: too many errors; `ip link set ... restart-ms 100` lets the kernel come back")
        if now_s - self._healthy_s > REOPEN_S:
            self._reopen()

    def _reopen(self) -> None:
        self._shut()
        self._healthy_s = time.monotonic()
        try:
            self._bus = self._opened()
        except Exception as error:
            self._failed(f"cannot be opened: {one_line(error)}")

    def _opened(self) -> Any:
        settings = self._settings
        rates = {"bitrate": settings.bitrate, "data_bitrate": settings.data_bitrate}
        given: dict[str, Any] = {name: rate for name, rate in rates.items() if rate is not None}
        if any(encoder.is_fd for encoder in self._encoders):
            given["fd"] = True
        return can.Bus(settings.channel, settings.interface, ignore_config=True, can_filters=NOTHING, **given)

    def _shut(self) -> None:
        bus, self._bus = self._bus, None
        if bus:
            with suppress(Exception):
                bus.shutdown()

    def _failed(self, why: str) -> None:
        if why != self._fault:
            log.warning("%s: %s", self._name, why)
        self._fault = why


def _terms(manifest: Manifest) -> tuple[object, ...]:
    """What a manifest says that matters here."""
    return manifest.can, manifest.frame, manifest.max_age_ms
