"""Cameras, models and sinks that do as a test tells them, around a real pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from edgemask_runtime.answers import Answer
from edgemask_runtime.backoff import Backoff
from edgemask_runtime.frames import Shot
from edgemask_runtime.pipeline import Pipeline
from edgemask_runtime.predictor import Predictor, Served
from edgemask_runtime.settings import PipelineSettings, SourcePart
from edgemask_runtime.telemetry import Telemetry

from .tiny import picture

PATIENCE_S = 60


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another thread brings about."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.002)


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


class LiveCamera(Camera):
    """A live source that gives `count` shots and then raises `error`, or gives nothing more until it is closed."""

    def __init__(self, count: int, error: Exception | None = None, *, hangs: bool = False) -> None:
        super().__init__(count, 30)
        self.live = True
        self._error, self._hangs = error, hangs
        self.released = threading.Event()

    def __iter__(self) -> Iterator[Shot]:
        yield from super().__iter__()
        if self._error:
            raise self._error
        self.released.wait(PATIENCE_S)

    def close(self) -> None:
        super().close()
        if not self._hangs:
            self.released.set()


class Sink:
    """Notes what it is told; `gate` makes it wait, `errors` are raised one after the other, None is none."""

    wants_pixels = False

    def __init__(self, *errors: BaseException | None, gate: threading.Semaphore | None = None) -> None:
        self.answers: list[Answer] = []
        self.invalid: list[str] = []
        self.pixels: list[Any] = []
        self.closed = False
        self.attempts = 0
        self._errors, self._gate = list(errors), gate

    def write(self, answer: Answer, pixels: Any) -> None:
        self._try()
        self.answers.append(answer)
        self.pixels.append(pixels)

    def invalidate(self, reason: str) -> None:
        self._try()
        self.invalid.append(reason)

    def _try(self) -> None:
        self.attempts += 1
        if self._gate:
            assert self._gate.acquire(timeout=PATIENCE_S)
        error = self._errors.pop(0) if self._errors else None
        if error:
            raise error

    def close(self) -> None:
        self.closed = True


class Failing(Sink):
    """Takes nothing at all."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def _try(self) -> None:
        self.attempts += 1
        raise self._error


class Model:
    """A real predictor that raises `errors` one after the other first, None is none, and waits for `gate`."""

    def __init__(self, served: Predictor, *errors: Exception | None, gate: threading.Semaphore | None = None) -> None:
        self.manifest, self.digest, self.engine = served.manifest, served.digest, served.engine
        self.about = served.about
        self._served, self._errors, self._gate = served, list(errors), gate

    def predict(self, frames: Any) -> Any:
        if self._gate:
            assert self._gate.acquire(timeout=PATIENCE_S)
        error = self._errors.pop(0) if self._errors else None
        if error:
            raise error
        return self._served.predict(frames)

    def begin(self, frames: Any) -> Any:
        return lambda: self.predict(frames)


def settings(**changes: Any) -> PipelineSettings:
    return PipelineSettings("door", "tiny", SourcePart("folder", None), **changes)


class Run:
    """A pipeline with what it needs; `end` waits until it ended by itself."""

    def __init__(self, served: Served, opener: Any, *sinks: Any, telemetry: Telemetry | None = None, **changes: Any):
        self.telemetry = telemetry or Telemetry()
        self.finished = threading.Event()
        named = {f"sink-{index}": sink for index, sink in enumerate(sinks)}
        self.pipeline = Pipeline(
            settings(**changes),
            served,
            opener if callable(opener) else lambda: opener,
            named,
            self.telemetry,
            self.finished.set,
            backoff=lambda: Backoff(0.001, 0.002),
        )
        self.tally = self.pipeline.tally
        self.pipeline.open()
        self.pipeline.start()

    def end(self) -> Run:
        assert self.finished.wait(PATIENCE_S)
        return self.stop()

    def stop(self) -> Run:
        self.pipeline.halt()
        self.pipeline.join()
        tally = self.tally
        assert tally.captured == tally.answered + tally.expired + tally.failed + tally.dropped
        return self

    def events(self) -> list[str]:
        return [event.kind for event in self.telemetry.events]
