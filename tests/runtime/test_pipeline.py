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

from edgemask_runtime.bundle import Bundle, OutputRecord
from edgemask_runtime.cameras import open_source
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.frames import Frame, Mailbox, Shot, wall_clock
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.telemetry import Telemetry

from .parts import Camera, Failing, LiveCamera, Model, Run, Sink, until
from .tiny import MakeBundle, picture


@pytest.fixture(scope="module")
def predictor(make_bundle: MakeBundle) -> Predictor:
    return Predictor.open(Bundle.open(make_bundle(noisy=True, max_age_ms=60_000)))


def test_unpaced_nothing_is_dropped(predictor: Predictor) -> None:
    camera, sink = Camera(30, fps=0), Sink()
    run = Run(predictor, camera, sink).end()
    assert [answer.frame for answer in sink.answers] == list(range(30))
    assert [answer.reading.top[0].index for answer in sink.answers] == [number % 4 for number in range(30)]
    assert (run.tally.answered, run.tally.sinks["sink-0"].delivered) == (30, 30)
    assert camera.closed
    assert sink.closed
    assert sink.invalid == ["the source has ended"]


def test_a_slow_model_drops_frames_undecoded_and_answers_the_newest(predictor: Predictor) -> None:
    gate = threading.Semaphore(0)
    camera, sink = Camera(40, fps=400), Sink()
    run = Run(Model(predictor, gate=gate), camera, sink)
    until(lambda: run.tally.captured == 40)
    gate.release(40)
    run.end()
    assert sink.answers[-1].frame == camera.reads[-1] == 39
    assert sink.answers[-1].dropped == run.tally.dropped == 38
    assert len(camera.reads) == 2


def test_a_slow_sink_gets_the_newest_answer_and_holds_up_no_other(predictor: Predictor) -> None:
    gate = threading.Semaphore(0)
    slow, quick = Sink(gate=gate), Sink()
    run = Run(predictor, Camera(12, fps=100), slow, quick)
    until(lambda: quick.closed)
    gate.release(100)
    run.end()
    tallies = run.tally.sinks
    assert quick.answers[-1].frame == slow.answers[-1].frame == 11
    assert len(slow.answers) < 4
    assert tallies["sink-0"].delivered + tallies["sink-0"].dropped == run.tally.answered


def test_old_frames_are_counted_and_never_delivered(predictor: Predictor) -> None:
    class Slow(Model):
        def predict(self, frames: Any) -> Any:
            time.sleep(0.02)
            return super().predict(frames)

    sink = Sink()
    run = Run(Slow(predictor), Camera(4, fps=0), sink, max_age_ms=5).end()
    assert (run.tally.expired, sink.answers) == (4, [])


def test_a_frame_that_is_too_old_when_it_comes_is_not_even_read(predictor: Predictor) -> None:
    camera = Camera(1, fps=100)
    camera.__class__ = type("Late", (Camera,), {"__iter__": lambda self: iter([Shot("", lambda: self.read(0), 1)])})
    run = Run(predictor, camera, Sink()).end()
    assert (run.tally.expired, camera.reads) == (1, [])


def test_frames_that_wait_for_the_model_are_read_while_it_is_busy(predictor: Predictor) -> None:
    gate, telemetry, ahead = threading.Semaphore(0), Telemetry(), list[int]()

    def read(number: int) -> Any:
        ahead.append(number - telemetry.pipeline("door").answered)
        return picture(0)

    camera = Camera(9, fps=0, read=read)
    run = Run(Model(predictor, gate=gate), camera, Sink(), telemetry=telemetry)
    until(lambda: camera.reads[:2] == [0, 1])
    assert run.tally.answered == 0
    gate.release(9)
    run.end()
    assert (camera.reads, run.tally.answered) == (list(range(9)), 9)
    assert max(ahead) <= 2


def test_the_model_has_the_next_frame_before_the_answer_of_the_one_before_is_taken(predictor: Predictor) -> None:
    under_way, most = list[Any](), set[int]()

    class Counting(Model):
        def begin(self, frames: Any) -> Any:
            under_way.append(frames)
            most.add(len(under_way))
            # As long as a real one copies the frame: meanwhile the next one is read.
            time.sleep(0.005)
            return lambda: under_way.pop(0) is frames and self.predict(frames)

    sink = Sink()
    run = Run(Counting(predictor), Camera(10**9, fps=0), sink)
    until(lambda: 2 in most)
    run.stop()
    assert most == {1, 2}
    assert [answer.frame for answer in sink.answers] == list(range(run.tally.answered))
    assert run.tally.failed == 0


def test_a_bad_frame_is_counted_and_skipped(predictor: Predictor) -> None:
    def read(number: int) -> Any:
        if number in (1, 2):
            raise UserError("turned bad") if number == 1 else ValueError("a bug")
        return picture(0)

    sink = Sink()
    run = Run(predictor, Camera(4, fps=0, read=read), sink).end()
    assert [answer.frame for answer in sink.answers] == [0, 3]
    assert run.tally.failed == 2
    assert run.pipeline.error is None


def test_a_sink_that_fails_is_tried_again_and_stops_nothing(predictor: Predictor) -> None:
    flaky, steady = Sink(UserError("broker gone"), None, ValueError("a bug"), None), Sink()
    run = Run(predictor, Camera(30, fps=0), flaky, steady).end()
    assert [answer.frame for answer in steady.answers] == list(range(30))
    assert [answer.frame for answer in flaky.answers] == [1, *range(3, 30)]
    assert run.tally.sinks["sink-0"].failed == 2
    assert run.events() == ["sink-failed", "sink-back", "sink-failed", "sink-back"]
    assert run.pipeline.error is None


def test_a_sink_that_fails_to_the_last_is_the_pipelines_error(predictor: Predictor) -> None:
    steady = Sink()
    run = Run(predictor, Camera(3, fps=0), Failing(UserError("disk full")), steady).end()
    assert str(run.pipeline.error) == "disk full"
    assert len(steady.answers) == 3


def test_a_sink_that_fails_when_the_pipeline_is_stopped_is_no_error(predictor: Predictor) -> None:
    sink = Failing(UserError("broker gone"))
    run = Run(predictor, Camera(10**9, fps=100), sink)
    until(lambda: sink.attempts)
    assert run.stop().pipeline.error is None


def test_a_reader_that_is_gone_ends_the_pipeline(predictor: Predictor) -> None:
    camera = Camera(10**9, fps=0)
    run = Run(predictor, camera, Sink(None, BrokenPipeError())).end()
    assert isinstance(run.pipeline.error, BrokenPipeError)
    assert camera.closed


def test_a_camera_that_breaks_off_ends_its_pipeline(predictor: Predictor) -> None:
    class Broken(Camera):
        def __iter__(self) -> Iterator[Shot]:
            yield from super().__iter__()
            raise UserError("breaks off")

    sink = Sink()
    run = Run(predictor, Broken(2, fps=0), sink).end()
    assert str(run.pipeline.error) == "breaks off"
    assert len(sink.answers) == 2
    assert sink.closed


def test_max_frames_ends_an_endless_source(predictor: Predictor) -> None:
    sink = Sink()
    Run(predictor, Camera(10**9, fps=0), sink, max_frames=7).end()
    assert len(sink.answers) == 7


def test_stop_ends_a_paced_camera_at_once_and_says_so(predictor: Predictor) -> None:
    sink = Sink()
    run = Run(predictor, Camera(10**9, fps=0.001), sink)
    until(lambda: sink.answers)
    run.stop()
    assert (len(sink.answers), sink.invalid) == (1, ["stopping"])


def test_the_pace_is_kept(predictor: Predictor) -> None:
    started_s = time.monotonic()
    Run(predictor, Camera(11, fps=50), Sink()).end()
    assert time.monotonic() - started_s > 0.19


def test_a_model_that_is_down_loses_its_frames_only_and_the_sinks_are_told(predictor: Predictor) -> None:
    down, sink = ModelDown("tiny is being started again"), Sink()
    run = Run(Model(predictor, None, down, down, None), Camera(5, fps=0), sink)
    run.end()
    assert [answer.frame for answer in sink.answers] == [0, 3, 4]
    assert (run.tally.failed, run.tally.down) == (2, 2)
    assert sink.invalid == ["model down: tiny is being started again", "the source has ended"]
    assert run.events() == ["model-down", "model-up"]
    assert run.pipeline.error is None


def test_failed_entropy_stops_the_pipeline_with_an_alarm(predictor: Predictor) -> None:
    sink = Sink()
    camera = Camera(10**9, fps=0)
    run = Run(Model(predictor, None, NoEntropy("repeats itself")), camera, sink).end()
    assert len(sink.answers) == 1
    assert sink.invalid[0] == "alarm: repeats itself"
    assert run.telemetry.alarm == "door: repeats itself; the pipeline is stopped"
    assert isinstance(run.pipeline.error, NoEntropy)
    assert camera.closed


def test_a_device_may_lower_a_threshold_and_suspicion_is_an_event(make_bundle: MakeBundle) -> None:
    raw = (OutputRecord("probabilities", "float32", (None, 4), "suspicion"),)
    loose = Predictor.open(Bundle.open(make_bundle(outputs=raw, thresholds={"probabilities": 2.0})))
    calm, strict = Sink(), Sink()
    assert Run(loose, Camera(2, fps=0), calm).end().tally.suspicious == 0
    run = Run(loose, Camera(2, fps=0), strict, thresholds={"probabilities": 0.2}).end()
    assert [answer.reading.suspicious for answer in calm.answers + strict.answers] == [False, False, True, True]
    assert run.tally.suspicious == 2
    assert run.events() == ["suspicious", "suspicious"]


def test_the_summary_names_the_counts(predictor: Predictor) -> None:
    none = Run(predictor, Camera(0, fps=0), Sink()).end()
    assert none.pipeline.summary().startswith("0 frames captured, 0 answered, 0 dropped")
    assert "latency median" in Run(predictor, Camera(2, fps=0), Sink()).end().pipeline.summary()


def test_a_lost_and_a_stalled_source_do_not_touch_another_pipeline(predictor: Predictor) -> None:
    other = Sink()
    stalled = Run(predictor, LiveCamera(1), Sink(), stall_s=0.1)
    healthy = Run(predictor, Camera(20, fps=0), other).end()
    stalled.stop()
    assert len(other.answers) == healthy.tally.answered == 20


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
    mailbox.wait_until_empty()


def test_a_folder_camera_reads_what_it_lists(predictor: Predictor, faces: Path) -> None:
    sink = Sink()
    Run(predictor, open_source(faces, predictor.manifest.frame, fps=0, loop=True), sink, max_frames=9).end()
    assert [answer.name for answer in sink.answers] == [f"{number % 6}.pgm" for number in range(9)]


def test_an_image_that_turns_bad_is_skipped(predictor: Predictor, faces: Path) -> None:
    camera = open_source(faces, predictor.manifest.frame, fps=0)
    (faces / "2.pgm").write_bytes(b"P5")
    sink = Sink()
    assert Run(predictor, camera, sink).end().tally.failed == 1
    assert len(sink.answers) == 5


def test_every_shot_is_released_and_its_own_time_of_capture_travels_along(predictor: Predictor) -> None:
    released: list[int] = []
    taken_ns = [time.monotonic_ns() - 3_000_000 * (number + 1) for number in range(5)]

    class Buffers(Camera):
        def __iter__(self) -> Iterator[Shot]:
            for number in range(5):
                yield Shot(f"{number}", lambda: picture(1), taken_ns[number], partial(released.append, number))

    sink = Sink()
    Run(predictor, Buffers(5, fps=0), sink).end()
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
    snapshots, other = Sink(), Sink()
    snapshots.wants_pixels = True
    shown = picture(2)
    Run(predictor, Camera(1, fps=0, read=lambda _: shown), snapshots, other).end()
    assert not np.shares_memory(shown, snapshots.pixels[0])
    np.testing.assert_array_equal(snapshots.pixels[0], picture(2))
    assert other.pixels == [None]


def test_the_wall_clock_tells_a_monotonic_moment() -> None:
    told = datetime.fromisoformat(wall_clock(time.monotonic_ns() - 5_000_000_000))
    assert abs((datetime.now(timezone.utc) - told).total_seconds() - 5) < 2
