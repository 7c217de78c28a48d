"""From a camera into the mailbox: at the camera's pace, and again when a live camera is lost or stalls."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event, Thread

from edgemask_runtime.backoff import Backoff
from edgemask_runtime.cameras import Camera, SourceLost
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import NS_PER_MS, NS_PER_S, Frame, Mailbox, Shot
from edgemask_runtime.settings import PipelineSettings
from edgemask_runtime.telemetry import Telemetry

OPENING_S = 20.0
CLOSING_S = 2.0
MAX_ABANDONED = 3

log = logging.getLogger("edgemaskd")


class Capture:
    """One opening of the camera, in a thread of its own: a driver that hangs holds up nothing else."""

    def __init__(self, name: str, opener: Callable[[], Camera], take: Callable[[Capture, Shot], bool]) -> None:
        self.error: BaseException | None = None
        self.camera: Camera | None = None
        self.shots = 0
        self.done = Event()
        self._opener, self._take = opener, take
        self._last_ns = time.monotonic_ns()
        self._thread = Thread(target=self._run, name=f"{name} camera", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def missed(self) -> int:
        """Frames that the camera had and did not give, where it counts them."""
        return getattr(self.camera, "lost", 0)

    def silent_s(self) -> float:
        """How long it has given nothing."""
        return (time.monotonic_ns() - self._last_ns) / NS_PER_S

    def close(self) -> bool:
        """Close the camera and wait a little; False when the driver hangs."""
        if self.camera:
            try:
                self.camera.close()
            except Exception as error:
                log.warning("closing a source: %s", one_line(error))
        return self.done.wait(CLOSING_S)

    def _run(self) -> None:
        try:
            self.camera = self._opener()
            self._last_ns = time.monotonic_ns()
            for shot in self.camera:
                self._last_ns = time.monotonic_ns()
                if not self._take(self, shot):
                    break
            self.camera.close()
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()


class Feeder:
    """Puts shots into the mailbox, `max_frames` at most, and closes it when there will be no more.

    A source that is not live ends with its last frame or its first fault, which is then `error`. A live one is opened
    again, with backoff; `silent` hears why there are no frames meanwhile.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        opener: Callable[[], Camera],
        mailbox: Mailbox,
        telemetry: Telemetry,
        silent: Callable[[str], None],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._settings, self._mailbox, self._silent = settings, mailbox, silent
        self._telemetry, self._tally = telemetry, telemetry.pipeline(settings.name)
        self._backoff = backoff or Backoff()
        self._opener = opener
        self._first: Camera | None = None
        self._live = True
        self._due_s = 0.0
        self._missed = 0
        self._stopping = Event()
        self._capture: Capture | None = None
        self._abandoned: list[Capture] = []

    @property
    def lossless(self) -> bool:
        """Whether the source waits for us, so that nothing need be dropped."""
        return self._first is not None and not self._live and self._first.fps == 0

    def open(self) -> None:
        """Open the camera for the first time; one that is only absent for now is left to `run`."""
        try:
            self._first = self._opener()
            self._live = self._first.live
        except SourceLost as error:
            self._lost(error)

    def run(self) -> None:
        """Feed until the source ends or `stop` is called."""
        try:
            while not self._stopping.is_set() and self._round():
                self._stopping.wait(self._backoff.delay_s())
        finally:
            self._tally.state = "ended"
            self._mailbox.close()

    def stop(self) -> None:
        """Let `run` return; the frame in the mailbox is still answered."""
        self._stopping.set()
        self._mailbox.close()
        if self._capture:
            self._capture.close()

    def _round(self) -> bool:
        """Open the camera and take what it gives; whether to do so again."""
        if not self._may_open():
            return True
        self._capture = capture = Capture(self._settings.name, self._camera, self._take)
        capture.start()
        stalled = self._watch(capture)
        self._capture = None
        self._missed += capture.missed
        self._tally.missed = self._missed
        if not capture.close():
            self._abandoned.append(capture)
        if self._stopping.is_set() or self._is_complete():
            return False
        return self._after_stall() if stalled else self._after(capture)

    def _camera(self) -> Camera:
        """The camera that was opened at the start, or a new one."""
        camera = self._first if self._first and not self._tally.opened else self._opener()
        self._tally.opened += 1
        self._live = camera.live
        return camera

    def _may_open(self) -> bool:
        """Whether few enough drivers hang in what was opened before."""
        self._abandoned = [capture for capture in self._abandoned if not capture.done.is_set()]
        return len(self._abandoned) < MAX_ABANDONED

    def _watch(self, capture: Capture) -> bool:
        """Wait for the capture to end; True when a live one gave nothing for too long."""
        while not capture.done.wait(self._patience_s(capture)):
            if self._stopping.is_set():
                return False
            if self._live and capture.silent_s() > self._limit_s(capture):
                return True
        return False

    def _limit_s(self, capture: Capture) -> float:
        return self._settings.stall_s if capture.camera else max(self._settings.stall_s, OPENING_S)

    def _patience_s(self, capture: Capture) -> float:
        return max(0.01, self._limit_s(capture) - capture.silent_s()) if self._live else 1.0

    def _after_stall(self) -> bool:
        self._tally.stalled += 1
        self._tally.state = "stalled"
        reason = f"the source gave nothing for {self._settings.stall_s:g} s"
        self._telemetry.tell("stalled", self._settings.name, f"{reason}; it is opened again")
        self._silent(reason)
        return True

    def _after(self, capture: Capture) -> bool:
        """Whether a capture that ended is to be followed by another."""
        if self._live:
            self._lost(capture.error or SourceLost("the source ended"))
            return True
        self.error = capture.error
        return False

    def _lost(self, error: BaseException) -> None:
        if self._tally.state != "lost":
            self._telemetry.tell("lost", self._settings.name, f"{one_line(error)}; it is opened again")
        if not isinstance(error, UserError):
            log.error("%s", self._settings.name, exc_info=error)
        self._tally.lost += 1
        self._tally.state = "lost"
        self._silent(f"the source is lost: {one_line(error)}")

    def _take(self, capture: Capture, shot: Shot) -> bool:
        """Put one shot into the mailbox; False when no more are wanted of this capture."""
        if not self._live:
            self._wait()
        if self._stopping.is_set() or capture is not self._capture:
            shot.release()
            return False
        shot = _read_ahead(shot) if self.lossless else shot
        self._is_back()
        now_ns = time.monotonic_ns()
        # Why min: a driver's clock that is ahead of ours would make a frame young for ever.
        captured_ns = now_ns if shot.captured_ns is None else min(shot.captured_ns, now_ns)
        self._tally.capture.observe((now_ns - captured_ns) / NS_PER_MS)
        self._tally.captured += 1
        self._tally.missed = self._missed + capture.missed
        self._mailbox.put(Frame(shot, self._tally.captured - 1, captured_ns))
        self._tally.dropped = self._mailbox.dropped
        return not self._is_complete()

    def _is_complete(self) -> bool:
        most = self._settings.max_frames
        return most is not None and self._tally.captured >= most

    def _is_back(self) -> None:
        if self._tally.state == "running":
            return
        if self._tally.state in ("stalled", "lost"):
            self._telemetry.tell("back", self._settings.name, "the source gives frames again", level=logging.INFO)
        self._tally.state = "running"
        self._backoff.reset()

    def _wait(self) -> None:
        """Wait for the next frame's time; after a late frame no burst follows."""
        fps = self._first.fps if self._first else 0
        if fps == 0:
            self._mailbox.wait_until_empty()
            return
        self._due_s = self._due_s or time.monotonic()
        self._stopping.wait(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic() - 1 / fps) + 1 / fps


def _read_ahead(shot: Shot) -> Shot:
    """The shot with its pixels read while the model is at the one before: it will be wanted, as none is dropped."""
    try:
        pixels = shot.read()
    except Exception as error:
        return replace(shot, read=partial(_fail, error))
    return replace(shot, read=lambda: pixels)


def _fail(error: Exception) -> Pixels:
    raise error
