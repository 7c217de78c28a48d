"""Camera to mailbox to engine to sinks: each in its own thread, every frame accounted for."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Thread

import numpy as np

from edgemask_runtime.answers import Answer
from edgemask_runtime.cameras import Camera
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import Frame, Mailbox, Shot, wall_clock
from edgemask_runtime.predictor import Served
from edgemask_runtime.sinks import Sink

LATEST = 10_000
MS_PER_S = 1000.0

log = logging.getLogger("edgemaskd")


@dataclass
class Counters:
    """What became of the frames: captured = answered + dropped + expired + failed once the pipeline stands still."""

    captured: int = 0
    expired: int = 0
    answered: int = 0
    failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))

    def summary(self, dropped: int) -> str:
        """Return the counts and the latest latencies and ages on one line."""
        counts = f"{self.captured} frames captured, {self.answered} answered, {dropped} dropped"
        counts += f", {self.expired} expired, {self.failed} failed"
        if not self.answered:
            return counts
        return f"{counts}; latency {_spread(self.latencies_ms)}; age {_spread(self.ages_ms)}"


class Feeder:
    """Puts a camera's shots into the mailbox at the camera's pace, `max_frames` at most."""

    def __init__(self, camera: Camera, mailbox: Mailbox, counters: Counters, *, max_frames: int | None = None) -> None:
        self._camera, self._mailbox, self._counters = camera, mailbox, counters
        self._max_frames = max_frames
        self._stopping = Event()

    def run(self) -> None:
        """Feed until the camera ends or `stop` is called, then close the mailbox."""
        try:
            for shot in self._paced():
                captured_ns = time.monotonic_ns() if shot.captured_ns is None else shot.captured_ns
                self._mailbox.put(Frame(shot, self._counters.captured, captured_ns))
                self._counters.captured += 1
        finally:
            self._mailbox.close()
            self._camera.close()

    def stop(self) -> None:
        """Let `run` return; the frame in the mailbox is still answered."""
        self._stopping.set()
        self._mailbox.close()

    def _paced(self) -> Iterator[Shot]:
        due_s = time.monotonic()
        for shot in islice(self._camera, self._max_frames):
            due_s = self._wait(due_s)
            if self._stopping.is_set():
                return
            yield shot

    def _wait(self, due_s: float) -> float:
        """Wait for the next frame's time and return the next one; after a late frame no burst follows."""
        if self._camera.fps == 0:
            self._mailbox.wait_until_wanted()
            return due_s
        self._stopping.wait(max(0.0, due_s - time.monotonic()))
        return max(due_s, time.monotonic() - 1 / self._camera.fps) + 1 / self._camera.fps


class Worker:
    """Answers the newest frame, again and again; a frame older than the manifest allows is never delivered."""

    def __init__(
        self, name: str, predictor: Served, mailbox: Mailbox, sinks: Sequence[Sink], counters: Counters
    ) -> None:
        self._name = name
        self._keeps_pixels = any(sink.wants_pixels for sink in sinks)
        self._predictor, self._mailbox, self._sinks, self._counters = predictor, mailbox, sinks, counters
        self._max_age_ms = predictor.manifest.max_age_ms

    def run(self) -> None:
        """Work until the mailbox is closed and empty, then close the sinks."""
        try:
            while frame := self._mailbox.take():
                self._handle(frame)
                frame.shot.release()
        finally:
            for sink in self._sinks:
                sink.close()

    def _handle(self, frame: Frame) -> None:
        if self._is_expired(frame):
            return
        try:
            answer, pixels = self._answer(frame)
        except UserError as error:
            self._counters.failed += 1
            log.warning("%s: %s", frame.shot.name, error.message)
            return
        if not self._is_expired(frame):
            self._deliver(answer, pixels)

    def _is_expired(self, frame: Frame) -> bool:
        expired = frame.age_ms > self._max_age_ms
        self._counters.expired += expired
        return expired

    def _answer(self, frame: Frame) -> tuple[Answer, Pixels | None]:
        pixels = frame.shot.read()
        started_s = time.monotonic()
        outputs = self._predictor.predict(pixels[np.newaxis])
        latency_ms = (time.monotonic() - started_s) * MS_PER_S
        reading = self._predictor.read(outputs)
        answer = Answer(
            pipeline=self._name,
            frame=frame.frame_id,
            name=frame.shot.name,
            captured_ns=frame.captured_ns,
            captured_at=wall_clock(frame.captured_ns),
            digest=self._predictor.digest,
            age_ms=frame.age_ms,
            latency_ms=latency_ms,
            dropped=self._mailbox.dropped,
            reading=reading,
        )
        return answer, pixels.copy() if self._keeps_pixels else None

    def _deliver(self, answer: Answer, pixels: Pixels | None) -> None:
        for sink in self._sinks:
            sink.write(answer, pixels if sink.wants_pixels else None)
        self._counters.answered += 1
        self._counters.latencies_ms.append(answer.latency_ms)
        self._counters.ages_ms.append(answer.age_ms)


class Line:
    """A camera's feeder and worker in their threads; one of them calls `finished` when there is no more to do."""

    def __init__(
        self,
        name: str,
        predictor: Served,
        camera: Camera,
        sinks: Sequence[Sink],
        finished: Callable[[], None],
        *,
        max_frames: int | None = None,
    ) -> None:
        self.counters = Counters()
        self._mailbox = Mailbox()
        self._finished = finished
        self._errors: list[BaseException] = []
        self._feeder = Feeder(camera, self._mailbox, self.counters, max_frames=max_frames)
        worker = Worker(name, predictor, self._mailbox, sinks, self.counters)
        self._threads = [
            Thread(target=self._guarded, args=(body,), name=name, daemon=True)
            for name, body in (("worker", worker.run), ("feeder", self._feeder.run))
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the camera, let the frame in hand be answered, and raise what went wrong in a thread."""
        self._feeder.stop()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def summary(self) -> str:
        """Return what became of the frames, on one line."""
        return self.counters.summary(self._mailbox.dropped)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._errors.append(error)
        if self._errors or body != self._feeder.run:
            self._finished()


def _spread(values_ms: deque[float]) -> str:
    median_ms, p99_ms = np.percentile(values_ms, [50, 99])
    return f"median {median_ms:.2f} ms, p99 {p99_ms:.2f} ms"
