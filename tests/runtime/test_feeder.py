"""Live sources that are lost, stall, hang or are absent at the start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgemask_runtime.bundle import Bundle
from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.errors import UserError
from edgemask_runtime.feeder import MAX_ABANDONED
from edgemask_runtime.frames import Shot
from edgemask_runtime.predictor import Predictor

from .parts import Camera, LiveCamera, Run, Sink, until
from .tiny import MakeBundle


@pytest.fixture(scope="module")
def predictor(make_bundle: MakeBundle) -> Predictor:
    return Predictor.open(Bundle.open(make_bundle(max_age_ms=60_000)))


class Opener:
    """Gives one camera after the other, or raises the error in its place; the last one again and again."""

    def __init__(self, *given: Any) -> None:
        self.given, self.calls = list(given), 0

    def __call__(self) -> Any:
        chosen = self.given[min(self.calls, len(self.given) - 1)]
        self.calls += 1
        if isinstance(chosen, Exception):
            raise chosen
        return chosen


def test_a_source_that_is_lost_is_opened_again_until_it_is_back(predictor: Predictor) -> None:
    sink, last = Sink(), LiveCamera(3)
    gone = SourceLost("/dev/video0: unplugged")
    run = Run(predictor, Opener(LiveCamera(2, gone), gone, gone, last), sink)
    until(lambda: run.tally.answered + run.tally.dropped == 5)
    assert run.tally.state == "running"
    run.stop()
    assert (run.tally.lost, run.tally.stalled, run.tally.opened) == (3, 0, 2)
    assert run.events() == ["lost", "back"]
    assert sink.invalid[-1] == "stopping"
    assert set(sink.invalid) <= {"the source is lost: /dev/video0: unplugged", "stopping"}
    assert run.pipeline.error is None
    assert last.closed


def test_what_sources_missed_is_counted_over_all_openings(predictor: Predictor) -> None:
    first, last = LiveCamera(2, SourceLost("gone")), LiveCamera(3)
    first.lost, last.lost = 5, 2  # type: ignore[attr-defined]
    run = Run(predictor, Opener(first, last, LiveCamera(1)), Sink())
    until(lambda: run.tally.captured == 5)
    assert run.tally.missed == 7
    assert run.stop().tally.captured == 5


def test_a_live_source_that_ends_is_opened_again(predictor: Predictor) -> None:
    opener = Opener(LiveCamera(1, SourceLost("end")), LiveCamera(1))
    opener.given[0].__class__ = type("Short", (LiveCamera,), {"__iter__": lambda self: iter(())})
    run = Run(predictor, opener, Sink())
    until(lambda: run.tally.answered == 1)
    assert run.stop().tally.lost == 1


def test_a_source_that_stalls_is_closed_and_opened_again(predictor: Predictor) -> None:
    sink, silent, cameras = Sink(), LiveCamera(1), [LiveCamera(2)]

    def opener() -> LiveCamera:
        if not silent.reads:
            return silent
        until(lambda: sink.invalid)
        return cameras[0]

    run = Run(predictor, opener, sink, stall_s=0.3)
    until(lambda: run.tally.opened == 2 and run.tally.captured == 3)
    assert silent.closed
    run.stop()
    assert run.tally.stalled >= 1
    assert sink.invalid[0] == "the source gave nothing for 0.3 s"
    assert run.events()[:2] == ["stalled", "back"]


def test_a_driver_that_hangs_is_left_behind_a_few_times_and_no_more(predictor: Predictor) -> None:
    hung = [LiveCamera(0, hangs=True) for _ in range(MAX_ABANDONED + 2)]
    opener = Opener(*hung)
    run = Run(predictor, opener, Sink(), stall_s=0.1)
    until(lambda: run.tally.stalled == MAX_ABANDONED)
    assert opener.calls == MAX_ABANDONED
    hung[0].released.set()
    until(lambda: opener.calls == MAX_ABANDONED + 1)
    for camera in hung:
        camera.released.set()
    run.stop()


def test_a_source_that_is_absent_at_the_start_is_waited_for(predictor: Predictor) -> None:
    run = Run(predictor, Opener(SourceLost("no camera"), SourceLost("no camera"), LiveCamera(1)), Sink())
    until(lambda: run.tally.answered == 1)
    assert run.stop().events() == ["lost", "back"]


def test_a_fault_that_time_does_not_mend_ends_the_start(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="without PyAV"):
        Run(predictor, Opener(UserError("a video cannot be read without PyAV")), Sink())


def test_later_any_fault_is_waited_out(predictor: Predictor) -> None:
    first = LiveCamera(1, ValueError("a bug in a driver"))
    run = Run(predictor, Opener(first, UserError("busy"), LiveCamera(1)), Sink())
    until(lambda: run.tally.captured == 2)
    assert run.stop().tally.lost == 2


def test_a_clock_that_is_ahead_makes_no_frame_young(predictor: Predictor) -> None:
    class Ahead(Camera):
        def __iter__(self) -> Iterator[Shot]:
            yield Shot("", lambda: self.read(0), time.monotonic_ns() + 10**12)

    sink = Sink()
    Run(predictor, Ahead(1, fps=0), sink).end()
    assert sink.answers[0].captured_ns <= time.monotonic_ns()
    assert sink.answers[0].age_ms > 0
