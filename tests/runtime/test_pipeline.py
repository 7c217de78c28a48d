from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.answers import Answer
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.cameras import open_source
from edgemask_runtime.errors import UserError
from edgemask_runtime.frames import Frame, Mailbox, Shot, wall_clock
from edgemask_runtime.pipeline import Line
from edgemask_runtime.predictor import Predictor

from .tiny import MakeBundle, picture


class Camera:
    """Gives `count` shots at a pace; `reads` notes which of them were decoded."""

    def __init__(self, count: int, fps: float, read: Any = lambda number: picture(number % 4)) -> None:
        self.fps, self.live = fps, False
        self.count, self._read = count, read
        self.reads: list[int] = []
        self.closed = False

    def __iter__(self) -> Iterator[Shot]:
        for number in range(self.count):
            yield Shot(f"shot {number}", lambda number=number: self.read(number))  # type: ignore[misc]

    def read(self, number: int) -> Any:
        self.reads.append(number)
        return self._read(number)

    def close(self) -> None:
        self.closed = True


class Sink:
    wants_pixels = False

    def __init__(self, delay_s: float = 0.0, error: Exception | None = None) -> None:
        self.answers: list[Answer] = []
        self.invalid: list[str] = []
        self.closed = False
        self._delay_s, self._error = delay_s, error

    def write(self, answer: Answer, pixels: Any) -> None:
        time.sleep(self._delay_s)
        if self._error:
            raise self._error
        self.answers.append(answer)

    def invalidate(self, reason: str) -> None:
        self.invalid.append(reason)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def predictor(make_bundle: MakeBundle) -> Predictor:
    return Predictor.open(Bundle.open(make_bundle(noisy=True)))


def run(predictor: Predictor, camera: Any, sink: Sink, **options: Any) -> Line:
    finished = threading.Event()
    line = Line("door", predictor, camera, [sink], finished.set, **options)
    line.start()
    assert finished.wait(10)
    line.stop()
    counters = line.counters
    left = counters.answered + counters.expired + counters.failed + line._mailbox.dropped
    assert counters.captured == left
    return line


def test_unpaced_nothing_is_dropped(predictor: Predictor) -> None:
    camera, sink = Camera(30, fps=0), Sink()
    line = run(predictor, camera, sink)
    assert [answer.frame for answer in sink.answers] == list(range(30))
    assert [answer.reading.top[0].index for answer in sink.answers] == [number % 4 for number in range(30)]
    assert line.counters.answered == 30
    assert camera.closed
    assert sink.closed


def test_a_slow_sink_drops_frames_undecoded_and_answers_the_newest(predictor: Predictor) -> None:
    camera, sink = Camera(40, fps=400), Sink(delay_s=0.02)
    line = run(predictor, camera, sink)
    assert sink.answers[-1].frame == 39
    assert sink.answers[-1].dropped > 0
    assert len(camera.reads) == line.counters.answered < 40


def test_old_frames_are_counted_and_never_delivered(make_bundle: MakeBundle) -> None:
    slow = Predictor.open(Bundle.open(make_bundle(max_age_ms=5)))
    sink = Sink()
    line = run(slow, Camera(4, fps=0, read=lambda _: time.sleep(0.02) or picture(0)), sink)  # type: ignore[func-returns-value]
    assert (line.counters.expired, sink.answers) == (4, [])


def test_a_frame_that_waited_too_long_is_not_even_read(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(Bundle.open(make_bundle(max_age_ms=5)))
    camera, sink = Camera(3, fps=300), Sink(delay_s=0.05)
    run(predictor, camera, sink)
    assert len(camera.reads) <= 1


def test_a_bad_frame_is_counted_and_skipped(predictor: Predictor) -> None:
    def read(number: int) -> Any:
        if number == 1:
            raise UserError("turned bad")
        return picture(0)

    sink = Sink()
    line = run(predictor, Camera(3, fps=0, read=read), sink)
    assert [answer.frame for answer in sink.answers] == [0, 2]
    assert line.counters.failed == 1


def test_a_sink_that_fails_ends_the_line(predictor: Predictor) -> None:
    camera = Camera(10**9, fps=0)
    with pytest.raises(UserError, match="disk full"):
        run(predictor, camera, Sink(error=UserError("disk full")))
    assert camera.closed


def test_a_camera_that_breaks_off_ends_the_line(predictor: Predictor) -> None:
    class Broken(Camera):
        def __iter__(self) -> Iterator[Shot]:
            yield from super().__iter__()
            raise UserError("breaks off")

    sink = Sink()
    with pytest.raises(UserError, match="breaks off"):
        run(predictor, Broken(2, fps=0), sink)
    assert len(sink.answers) == 2
    assert sink.closed


def test_max_frames_ends_an_endless_source(predictor: Predictor) -> None:
    sink = Sink()
    run(predictor, Camera(10**9, fps=0), sink, max_frames=7)
    assert len(sink.answers) == 7


def test_stop_ends_a_paced_camera_at_once(predictor: Predictor) -> None:
    line = Line("door", predictor, Camera(10**9, fps=0.01), [Sink()], lambda: None)
    line.start()
    started_s = time.monotonic()
    line.stop()
    assert time.monotonic() - started_s < 2


def test_the_pace_is_kept(predictor: Predictor) -> None:
    started_s = time.monotonic()
    run(predictor, Camera(11, fps=50), Sink())
    assert 0.19 < time.monotonic() - started_s < 1


def test_the_summary_names_the_counts(predictor: Predictor) -> None:
    assert run(predictor, Camera(0, fps=0), Sink()).summary().startswith("0 frames captured, 0 answered, 0 dropped")
    assert "latency median" in run(predictor, Camera(2, fps=0), Sink()).summary()


def test_entropy_is_fresh_for_every_frame_of_a_batch(predictor: Predictor) -> None:
    probabilities = predictor.predict(np.full((8, 8, 6, 1), 9, np.uint8))["probabilities"]
    assert len(np.unique(probabilities, axis=0)) == 8


def test_a_model_that_contradicts_its_manifest_is_refused(make_bundle: MakeBundle) -> None:
    bundle = Bundle.open(make_bundle(noisy=True, entropy=None))
    with pytest.raises(UserError, match="manifest does not state"):
        Predictor.open(bundle)


def test_another_engine_must_run_the_same_format(make_bundle: MakeBundle) -> None:
    bundle = Bundle.open(make_bundle())
    with pytest.raises(UserError, match="does not run onnx"):
        Predictor.open(bundle, engine="litert")
    with pytest.raises(UserError, match="unknown engine"):
        Predictor.open(bundle, engine="onnx")


def test_the_mailbox_keeps_the_newest_and_counts_the_rest() -> None:
    mailbox = Mailbox()
    frames = [Frame(Shot("", lambda: picture(0)), number, 0) for number in range(4)]
    for frame in frames[:3]:
        mailbox.put(frame)
    assert mailbox.take() is frames[2]
    mailbox.put(frames[3])
    mailbox.close()
    mailbox.put(frames[0])
    assert (mailbox.take(), mailbox.take()) == (frames[3], None)
    assert mailbox.dropped == 3
    mailbox.wait_until_wanted()


def test_a_folder_camera_reads_what_it_lists(predictor: Predictor, faces: Path) -> None:
    sink = Sink()
    run(predictor, open_source(faces, predictor.manifest.frame, fps=0, loop=True), sink, max_frames=9)
    assert [answer.name for answer in sink.answers] == [f"{number % 6}.pgm" for number in range(9)]


def test_an_image_that_turns_bad_is_skipped(predictor: Predictor, faces: Path) -> None:
    camera = open_source(faces, predictor.manifest.frame, fps=0)
    (faces / "2.pgm").write_bytes(b"P5")
    sink = Sink()
    assert run(predictor, camera, sink).counters.failed == 1
    assert len(sink.answers) == 5


def test_every_shot_is_released_and_its_own_time_of_capture_travels_along(predictor: Predictor) -> None:
    released: list[int] = []
    taken_ns = [time.monotonic_ns() - 3_000_000 * (number + 1) for number in range(5)]

    class Buffers(Camera):
        def __iter__(self) -> Iterator[Shot]:
            for number in range(5):
                yield Shot(f"{number}", lambda: picture(1), taken_ns[number], partial(released.append, number))

    sink = Sink()
    run(predictor, Buffers(5, fps=0), sink)
    assert released == list(range(5))
    assert [answer.captured_ns for answer in sink.answers] == taken_ns
    assert all(answer.age_ms >= 3 for answer in sink.answers)
    assert {(answer.pipeline, answer.digest) for answer in sink.answers} == {("door", predictor.digest)}


def test_a_replaced_frame_is_released() -> None:
    released: list[int] = []
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(Frame(Shot("", lambda: picture(0), None, partial(released.append, number)), number, 0))
    mailbox.close()
    mailbox.put(Frame(Shot("", lambda: picture(0), None, partial(released.append, 3)), 3, 0))
    assert released == [0, 1, 3]


def test_a_sink_that_wants_pixels_gets_a_copy_of_the_frame(predictor: Predictor) -> None:
    class Snapshots(Sink):
        wants_pixels = True

        def write(self, answer: Answer, pixels: Any) -> None:
            super().write(answer, pixels)
            self.pixels = pixels

    shown, sink = picture(2), Snapshots()
    run(predictor, Camera(1, fps=0, read=lambda _: shown), sink)
    assert not np.shares_memory(shown, sink.pixels)
    np.testing.assert_array_equal(sink.pixels, picture(2))


def test_the_wall_clock_tells_a_monotonic_moment() -> None:
    told = datetime.fromisoformat(wall_clock(time.monotonic_ns() - 5_000_000_000))
    assert abs((datetime.now(timezone.utc) - told).total_seconds() - 5) < 2
