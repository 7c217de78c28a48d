"""Between a pipeline and one of its sinks: a thread of its own, the newest answer wins, none is delivered too late."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition, Thread

from edgemask_runtime.answers import Answer
from edgemask_runtime.backoff import Backoff
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import NS_PER_MS, NS_PER_S
from edgemask_runtime.sinks import STOPPING, Sink, Unreachable
from edgemask_runtime.telemetry import SinkTally, Telemetry

FOREVER_NS, MAX_WAIT_S = 1 << 62, 3600.0

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class Delivery:
    """An answer on its way, with a copy of its frame where the sink wants it."""

    answer: Answer
    pixels: Pixels | None


@dataclass(frozen=True)
class Invalid:
    """Word that there is no valid answer, and why."""

    reason: str


Item = Delivery | Invalid


class Outbox:
    """Holds one item for its sink; a newer one replaces it. A sink that fails is tried again later, with newer ones.

    When an answer grows older than `max_age_ms` and nothing newer was delivered, the sink is told that it is not valid
    any more; it is told once, and as often as it takes to succeed.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        tally: SinkTally,
        telemetry: Telemetry,
        *,
        max_age_ms: Callable[[], int],
        broken: Callable[[BaseException], None],
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.error: UserError | None = None
        self._sink, self._tally, self._telemetry = sink, tally, telemetry
        self._max_age_ms, self._broken = max_age_ms, broken
        self._backoff = backoff or Backoff()
        self._changed = Condition()
        self._item: Item | None = None
        self._told_invalid = False
        self._valid_until_ns: int | None = None
        self._not_before_ns = 0
        self._closed = False
        self._last_words = STOPPING
        self._thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def wants_pixels(self) -> bool:
        """Whether the sink wants frames now."""
        return self._sink.wants_pixels

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, delivery: Delivery, *, wait_s: float = 0.0) -> None:
        """Leave an answer for the sink, in place of what is left there; first wait so long for that to be taken."""
        self._leave(delivery, wait_s)

    def invalidate(self, reason: str, *, wait_s: float = 0.0) -> None:
        """Tell the sink that there is no valid answer, in place of what is left for it."""
        self._leave(Invalid(reason), wait_s)

    def close(self, reason: str) -> None:
        """Let the thread deliver what waits, say why no more will come, and close the sink; see `join`."""
        with self._changed:
            self._last_words = reason
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; False when the sink hangs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _leave(self, item: Item, wait_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._closed, wait_s)
            replaced = item if self._closed else self._item
            self._item = self._item if self._closed else item
            self._tally.dropped += isinstance(replaced, Delivery)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while item := self._next():
                self._handle(item)
            undelivered = self.error
            self._handle(Invalid(self._last_words))
            self.error = undelivered or self.error
            self._sink.close()
        except Exception as error:
            # Why closed: whoever leaves an answer here would wait for it to be taken.
            self.close(STOPPING)
            self._broken(error)

    def _next(self) -> Item | None:
        """Wait for something to do and take it; None when the outbox is closed and empty."""
        with self._changed:
            while not self._closed and (left_ns := self._due_ns() - time.monotonic_ns()) > 0:
                self._changed.wait(min(left_ns / NS_PER_S, MAX_WAIT_S))
            item, self._item = self._item, None
            self._changed.notify_all()
            return item if item or self._closed else Invalid(f"nothing newer within {self._max_age_ms()} ms")

    def _due_ns(self) -> int:
        """When there is something to do."""
        if self._item is not None:
            return self._not_before_ns
        return FOREVER_NS if self._valid_until_ns is None else max(self._valid_until_ns, self._not_before_ns)

    def _handle(self, item: Item) -> None:
        try:
            done = self._deliver(item) if isinstance(item, Delivery) else self._invalidate(item)
        except BrokenPipeError:
            raise
        except Exception as error:
            self._failed(item, error)
        else:
            if done:
                self._succeeded()

    def _deliver(self, delivery: Delivery) -> bool:
        """Write an answer that is young enough; False where it is not."""
        begun_ns = time.monotonic_ns()
        captured_ns, max_age_ns = delivery.answer.captured_ns, self._max_age_ms() * NS_PER_MS
        age_ms = (begun_ns - captured_ns) / NS_PER_MS
        if begun_ns - captured_ns > max_age_ns:
            self._tally.expired += 1
            return False
        self._sink.write(replace(delivery.answer, age_ms=age_ms), delivery.pixels)
        self._valid_until_ns, self._told_invalid = captured_ns + max_age_ns, False
        self._tally.delivered += 1
        self._tally.age.observe(age_ms)
        self._tally.deliver.observe((time.monotonic_ns() - begun_ns) / NS_PER_MS)
        return True

    def _invalidate(self, invalid: Invalid) -> bool:
        """Say it once; False where it was said."""
        if self._told_invalid:
            return False
        self._sink.invalidate(invalid.reason)
        self._valid_until_ns, self._told_invalid = None, True
        self._tally.invalidated += 1
        return True

    def _failed(self, item: Item, error: Exception) -> None:
        """Put off the next attempt; word that there is no valid answer is not lost, unless an answer came."""
        self._tally.failed += 1
        if self.error is None:
            self._telemetry.tell("sink-failed", self.name, one_line(error))
        if not isinstance(error, UserError):
            log.debug("%s", self.name, exc_info=error)
        self.error = error if isinstance(error, UserError) else UserError(f"{self.name}: {one_line(error)}")
        if not isinstance(error, Unreachable):
            self._not_before_ns = time.monotonic_ns() + int(self._backoff.delay_s() * NS_PER_S)
        with self._changed:
            if isinstance(item, Invalid) and not self._closed:
                self._item = self._item or item

    def _succeeded(self) -> None:
        if self.error:
            self._telemetry.tell("sink-back", self.name, "works again", level=logging.INFO)
        self.error = None
        self._not_before_ns = 0
        self._backoff.reset()
