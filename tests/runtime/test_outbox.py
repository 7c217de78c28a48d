"""Between a pipeline and a sink: ages, what is told when, and sinks that hang or fail."""

from __future__ import annotations

import threading
import time
from typing import Any

from edgemask_runtime.answers import Answer, Reading
from edgemask_runtime.backoff import Backoff
from edgemask_runtime.errors import UserError
from edgemask_runtime.sinks import ENDED, STOPPING, Unreachable
from edgemask_runtime.sinks.outbox import Delivery, Outbox
from edgemask_runtime.telemetry import SinkTally, Telemetry

from .parts import PATIENCE_S, Sink, until

LONG_MS = 3_600_000


class Box:
    """An outbox on a sink, started."""

    def __init__(self, sink: Sink, max_age_ms: int = LONG_MS) -> None:
        self.sink, self.tally, self.telemetry = sink, SinkTally(), Telemetry()
        self.broken: list[BaseException] = []
        self.outbox = Outbox(
            "door jsonl",
            sink,
            self.tally,
            self.telemetry,
            max_age_ms=lambda: max_age_ms,
            broken=self.broken.append,
            backoff=Backoff(0.001, 0.01),
        )
        self.outbox.start()

    def put(self, frame: int, *, age_ms: float = 0.0, **options: Any) -> None:
        captured_ns = time.monotonic_ns() - int(age_ms * 1e6)
        answer = Answer("door", frame, "", captured_ns, "", "", age_ms, 1.0, 0, Reading((), None, {}))
        self.outbox.put(Delivery(answer, None), **options)

    def end(self, reason: str = STOPPING) -> None:
        self.outbox.close(reason)
        assert self.outbox.join(PATIENCE_S)


def test_an_answer_that_waited_too_long_is_not_delivered() -> None:
    gate = threading.Semaphore(0)
    box = Box(Sink(gate=gate), max_age_ms=200)
    box.put(0)
    until(lambda: box.sink.attempts == 1)
    box.put(1)
    time.sleep(0.25)
    gate.release(100)
    box.end()
    assert [answer.frame for answer in box.sink.answers] == [0]
    assert (box.tally.delivered, box.tally.expired) == (1, 1)


def test_the_age_is_the_one_at_delivery() -> None:
    gate = threading.Semaphore(0)
    box = Box(Sink(gate=gate))
    box.put(0)
    until(lambda: box.sink.attempts == 1)
    box.put(1, age_ms=1000)
    time.sleep(0.05)
    gate.release(100)
    box.end()
    assert box.sink.answers[1].age_ms >= 1050


def test_an_answer_that_nothing_follows_is_taken_back_once() -> None:
    box = Box(Sink(), max_age_ms=100)
    box.put(0)
    until(lambda: box.sink.invalid)
    time.sleep(0.15)
    box.put(1)
    until(lambda: len(box.sink.answers) == 2)
    box.end()
    assert box.sink.invalid[0] == "nothing newer within 100 ms"
    assert len(box.sink.invalid) in (1, 2)
    assert box.tally.invalidated == 2


def test_a_sink_that_reconnects_by_itself_is_offered_the_next_answer_at_once() -> None:
    box = Box(Sink(Unreachable("away"), UserError("broken"), None))
    box.outbox._backoff = Backoff(LONG_MS, LONG_MS)
    for attempt in (1, 2):
        box.put(attempt)
        until(lambda attempt=attempt: box.sink.attempts == attempt)  # type: ignore[misc]
    until(lambda: box.tally.failed == 2)
    box.put(3)
    assert box.outbox._due_ns() > time.monotonic_ns()
    box.end()


def test_word_of_no_answer_is_said_again_until_the_sink_has_it() -> None:
    box = Box(Sink(None, UserError("bus off"), UserError("bus off"), None))
    box.put(0)
    until(lambda: box.sink.answers)
    box.outbox.invalidate("the source is lost")
    until(lambda: box.sink.invalid)
    box.end()
    assert (box.sink.invalid, box.tally.failed) == (["the source is lost"], 2)


def test_it_is_not_said_twice_but_after_an_answer_it_is() -> None:
    box = Box(Sink())
    for reason in ("first", "second"):
        box.outbox.invalidate(reason)
        until(lambda: box.outbox._item is None)
    until(lambda: box.sink.invalid)
    box.put(0)
    until(lambda: box.sink.answers)
    box.end(ENDED)
    assert box.sink.invalid == ["first", ENDED]


def test_a_sink_that_hangs_is_left_behind_and_what_it_misses_is_counted() -> None:
    gate = threading.Semaphore(0)
    box = Box(Sink(gate=gate))
    for frame in range(5):
        box.put(frame, wait_s=0.01)
        until(lambda: box.sink.attempts == 1)
    box.outbox.close(STOPPING)
    assert not box.outbox.join(0.05)
    box.put(5)
    assert box.tally.dropped == 4
    gate.release(100)
    assert box.outbox.join(PATIENCE_S)
    assert [answer.frame for answer in box.sink.answers] == [0, 4]


def test_a_sink_whose_close_fails_is_told_of() -> None:
    class Unclosable(Sink):
        def close(self) -> None:
            raise UserError("cannot close")

    box = Box(Unclosable())
    box.end()
    assert [str(error) for error in box.broken] == ["cannot close"]


def test_backoff_doubles_to_its_limit_and_begins_again() -> None:
    backoff = Backoff(1.0, 4.0)
    for most in (1, 2, 4, 4):
        assert most / 2 <= backoff.delay_s() <= most
    backoff.reset()
    assert backoff.delay_s() <= 1
