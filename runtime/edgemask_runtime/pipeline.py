"""Camera to mailbox to model to sinks: each in its own thread, every frame accounted for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Thread

import numpy as np

from edgemask_runtime.about import Outputs
from edgemask_runtime.answers import Answer, Reading
from edgemask_runtime.backoff import Backoff
from edgemask_runtime.cameras import Camera
from edgemask_runtime.engines import Array
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import ModelDown, UserError, one_line
from edgemask_runtime.feeder import Feeder
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import NS_PER_MS, NS_PER_S, Frame, Mailbox, wall_clock
from edgemask_runtime.limits import exceeds, max_age_ms
from edgemask_runtime.predictor import Served
from edgemask_runtime.settings import PipelineSettings
from edgemask_runtime.sinks import ENDED, STOPPING, Sink
from edgemask_runtime.sinks.outbox import Delivery, Outbox
from edgemask_runtime.telemetry import SinkTally, Telemetry

MS_PER_S = 1000.0
DRAIN_S = 8.0
QUIET_S = 10.0

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class Inference:
    """What the model said of a frame, and how long it took."""

    reading: Reading
    digest: str
    latency_ms: float


@dataclass
class Asked:
    """A frame that the model was given, and what waits for its outputs; None where it is answered with nothing."""

    frame: Frame
    begun_ns: int
    outputs: Callable[[], Outputs] | None = None
    pixels: Pixels | None = None
    error: Exception | None = None


class Worker:
    """Answers the newest frame, again and again; a frame older than is allowed is not even read.

    Of a source that waits for us the next frame is given to the model before the answer of the one before is taken, so
    that the model need not wait for us.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        served: Served,
        mailbox: Mailbox,
        outboxes: Mapping[str, Outbox],
        telemetry: Telemetry,
        *,
        lossless: Callable[[], bool],
    ) -> None:
        self.error: BaseException | None = None
        self.busy_since_ns: int | None = None
        self._settings, self._served, self._mailbox, self._outboxes = settings, served, mailbox, outboxes
        self._telemetry, self._tally = telemetry, telemetry.pipeline(settings.name)
        self._lossless = lossless
        self._complaint, self._complained_s = "", 0.0

    @property
    def max_age_ms(self) -> int:
        """The age from which a frame is not answered, as the bundle that is loaded now and the settings have it."""
        return max_age_ms(self._settings, self._served.manifest)

    def run(self) -> None:
        """Work until the mailbox is closed and empty, or there is an alarm."""
        asked: Asked | None = None
        while self.error is None:
            frame = self._mailbox.take(wait=asked is None)
            if frame is None and asked is None:
                return
            following = self._asked(frame) if frame else None
            if asked:
                self._finish(asked)
            if following and not self._lossless():
                self._finish(following)
                following = None
            asked = self._freshened(following) if following else None
            self.busy_since_ns = asked.begun_ns if asked else None
        if asked:
            # Why not answered: there was an alarm meanwhile.
            self._tally.failed += 1
            asked.frame.shot.release()

    def _asked(self, frame: Frame) -> Asked:
        """Give the frame to the model; what goes wrong is told when its turn to be answered comes."""
        asked = self._freshened(Asked(frame, time.monotonic_ns()))
        self.busy_since_ns = self.busy_since_ns or asked.begun_ns
        try:
            self._tally.wait.observe(asked.frame.age_ms)
            if not self._is_expired(asked.frame):
                asked.pixels = self._read(frame)
                asked.begun_ns = time.monotonic_ns()
                asked.outputs = self._served.begin(asked.pixels[np.newaxis])
        except Exception as error:
            asked.error = error
        return asked

    def _freshened(self, asked: Asked) -> Asked:
        """A frame that waits for us is as old as the model is free for it, unless its source states its age."""
        asked.begun_ns = time.monotonic_ns()
        if self._lossless() and asked.frame.shot.captured_ns is None:
            asked.frame = replace(asked.frame, captured_ns=asked.begun_ns)
        return asked

    def _finish(self, asked: Asked) -> None:
        """Wait for the model's answer and deliver it."""
        try:
            self._handle(asked)
        except NoEntropy as error:
            self._alarm(error)
        except ModelDown as error:
            self._without_model(error)
        except Exception as error:
            self._failed(asked.frame, error)
        finally:
            asked.frame.shot.release()

    def _handle(self, asked: Asked) -> None:
        if asked.error:
            raise asked.error
        if asked.outputs is None or asked.pixels is None:
            return
        inference = self._inferred(asked.outputs(), asked.begun_ns)
        self._with_model()
        if not self._is_expired(asked.frame):
            self._deliver(self._answer(asked.frame, inference), self._copy(asked.pixels))

    def _is_expired(self, frame: Frame) -> bool:
        expired = frame.age_ms > self.max_age_ms
        self._tally.expired += expired
        return expired

    def _read(self, frame: Frame) -> Pixels:
        begun_ns = time.monotonic_ns()
        pixels = frame.shot.read()
        self._tally.read.observe((time.monotonic_ns() - begun_ns) / NS_PER_MS)
        return pixels

    def _inferred(self, outputs: Outputs, begun_ns: int) -> Inference:
        latency_ms = (time.monotonic_ns() - begun_ns) / NS_PER_MS
        self._tally.infer.observe(latency_ms)
        # Why not the model's own digest: a reload may have changed it since.
        return Inference(self._judged(outputs.read(), outputs), outputs.about.digest, latency_ms)

    def _judged(self, reading: Reading, outputs: Mapping[str, Array]) -> Reading:
        """The reading under the device's own thresholds, which are at most the manifest's."""
        if self._settings.thresholds and exceeds(outputs, self._settings.thresholds):
            reading = replace(reading, suspicious=True)
        if reading.suspicious:
            self._tally.suspicious += 1
        return reading

    def _answer(self, frame: Frame, inference: Inference) -> Answer:
        return Answer(
            pipeline=self._settings.name,
            frame=frame.frame_id,
            name=frame.shot.name,
            captured_ns=frame.captured_ns,
            captured_at=wall_clock(frame.captured_ns),
            digest=inference.digest,
            age_ms=frame.age_ms,
            latency_ms=inference.latency_ms,
            dropped=self._mailbox.dropped,
            reading=inference.reading,
        )

    def _copy(self, pixels: Pixels) -> Pixels | None:
        """A copy for the sinks that want one: the camera's own buffer is given back before they look."""
        if not any(outbox.wants_pixels for outbox in self._outboxes.values()):
            return None
        kept = pixels.copy()
        kept.setflags(write=False)
        return kept

    def _deliver(self, answer: Answer, pixels: Pixels | None) -> None:
        if answer.reading.suspicious:
            self._telemetry.tell("suspicious", self._settings.name, f"frame {answer.frame} ({answer.name})")
        for outbox in self._outboxes.values():
            outbox.put(Delivery(answer, pixels if outbox.wants_pixels else None), wait_s=self._wait_s())
        self._tally.answered += 1
        self._tally.age.observe(answer.age_ms)

    def invalidate(self, reason: str) -> None:
        """Tell every sink that there is no valid answer."""
        for outbox in self._outboxes.values():
            outbox.invalidate(reason, wait_s=self._wait_s())

    def _wait_s(self) -> float:
        """How long a sink may take before something newer takes its answer's place.

        Why a limit at all: a sink that hangs must not hold up the others for longer than its answer is of use.
        """
        return self.max_age_ms / MS_PER_S if self._lossless() else 0.0

    def _alarm(self, error: NoEntropy) -> None:
        self._tally.failed += 1
        self.error = error
        self._telemetry.raise_alarm(self._settings.name, f"{error.message}; the pipeline is stopped")
        self.invalidate(f"alarm: {error.message}")

    def _without_model(self, error: ModelDown) -> None:
        self._tally.failed += 1
        self._tally.down += 1
        if not self._tally.model_down:
            self._tally.model_down = True
            self._telemetry.tell("model-down", self._settings.name, error.message)
            self.invalidate(f"model down: {error.message}")

    def _with_model(self) -> None:
        if self._tally.model_down:
            self._tally.model_down = False
            self._telemetry.tell("model-up", self._settings.name, "the model answers again", level=logging.INFO)

    def _failed(self, frame: Frame, error: Exception) -> None:
        """Count a frame that failed; the same complaint is logged now and then, not once a frame."""
        self._tally.failed += 1
        complaint, now_s = f"{type(error).__name__}: {one_line(error)}", time.monotonic()
        if complaint == self._complaint and now_s - self._complained_s < QUIET_S:
            return
        self._complaint, self._complained_s = complaint, now_s
        bug = None if isinstance(error, UserError) else error
        log.warning("%s: %s", frame.shot.name, one_line(error), exc_info=bug)


class Pipeline:
    """A source's feeder, the worker and an outbox for each sink; `finished` is called when they have ended.

    One part's failure stops no other: `error` is what ended the source, or the sink that failed to the last.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        served: Served,
        opener: Callable[[], Camera],
        sinks: Mapping[str, Sink],
        telemetry: Telemetry,
        finished: Callable[[], None],
        *,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.name, self.tally = settings.name, telemetry.pipeline(settings.name)
        self._finished, self._stopped = finished, False
        self._broken: list[BaseException] = []
        self._undelivered: list[UserError] = []
        self._mailbox = Mailbox()
        self._outboxes = {name: self._outbox(name, sink, telemetry, backoff()) for name, sink in sinks.items()}
        self._feeder = Feeder(settings, opener, self._mailbox, telemetry, self._invalidate, backoff=backoff())
        self._worker = Worker(
            settings, served, self._mailbox, self._outboxes, telemetry, lossless=lambda: self._feeder.lossless
        )
        bodies = {"worker": self._work, "feeder": self._feeder.run}
        self._threads = {
            part: Thread(target=body, name=f"{settings.name} {part}", daemon=True) for part, body in bodies.items()
        }

    def open(self) -> None:
        """Open the source for the first time; UserError for a fault that time does not mend."""
        self._feeder.open()

    def start(self) -> None:
        """Start all threads."""
        for outbox in self._outboxes.values():
            outbox.start()
        for thread in self._threads.values():
            thread.start()

    def halt(self) -> None:
        """Take no more frames; the one in hand is still answered and delivered."""
        self._stopped = True
        self._feeder.stop()

    def join(self) -> None:
        """Wait until all has stopped; what hangs is left behind after a while."""
        for name, thread in self._threads.items():
            thread.join(DRAIN_S)
            if thread.is_alive():
                log.error("%s: its %s hangs and is left behind", self.name, name)

    @property
    def error(self) -> BaseException | None:
        """What went wrong for good, if anything did; answers that a stop left undelivered did not."""
        errors = [*self._broken, self._worker.error, self._feeder.error, *self._undelivered]
        return next((error for error in errors if error), None)

    def busy_s(self) -> float:
        """How long the worker has been at the frame in hand; much more than an inference means that it hangs."""
        since_ns = self._worker.busy_since_ns
        return 0.0 if since_ns is None else (time.monotonic_ns() - since_ns) / NS_PER_S

    def summary(self) -> str:
        """Return what became of the frames, on one line."""
        return self.tally.summary()

    def _outbox(self, name: str, sink: Sink, telemetry: Telemetry, backoff: Backoff) -> Outbox:
        tally = self.tally.sinks.setdefault(name, SinkTally())
        return Outbox(
            f"{self.name} {name}",
            sink,
            tally,
            telemetry,
            max_age_ms=lambda: self._worker.max_age_ms,
            broken=self._sink_broke,
            backoff=backoff,
        )

    def _invalidate(self, reason: str) -> None:
        for outbox in self._outboxes.values():
            outbox.invalidate(reason)

    def _sink_broke(self, error: BaseException) -> None:
        """End the pipeline: nobody can hear it any more, as when the reader of standard output is gone."""
        self._broken.append(error)
        self._feeder.stop()

    def _work(self) -> None:
        """Run the worker, then let the outboxes deliver what is left."""
        try:
            self._worker.run()
        finally:
            self._feeder.stop()
            self._mailbox.drain()
            ended_alone = not self._stopped
            for outbox in self._outboxes.values():
                outbox.close(ENDED if ended_alone else STOPPING)
            for outbox in self._outboxes.values():
                if not outbox.join(DRAIN_S / 2):
                    log.error("%s: hangs and is left behind", outbox.name)
            self.tally.dropped = self._mailbox.dropped
            if ended_alone:
                self._undelivered = [outbox.error for outbox in self._outboxes.values() if outbox.error]
            self._finished()
