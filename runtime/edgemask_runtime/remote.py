"""A model that runs in a process of its own, as the daemon's pipelines and clients use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.engines import EngineInfo
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.ring.connection import Moved
from edgemask_runtime.worker_process import WorkerProcess

HINT = "ask again with a later frame; the daemon's log says why it went"


class Remote:
    """Implements `predictor.Served` for any number of threads; `restarts` counts the workers that were lost.

    `alarm` is why it must not be trusted any more: the random source failed.

    Until its model was ready once it has no manifest, and raises ModelDown.
    """

    def __init__(self, name: str) -> None:
        self.name, self.restarts = name, 0
        self.alarm: str | None = None
        self._reason = "it is being started"
        self._worker: WorkerProcess | None = None
        self._about: About | None = None

    @property
    def about(self) -> About:
        """What it serves, or served last; a reload changes it."""
        if self._about is None:
            raise self._down()
        return self._about

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.about.manifest

    @property
    def digest(self) -> str:
        """The bundle's."""
        return self.about.digest

    @property
    def engine(self) -> EngineInfo:
        """What runs it."""
        return self.about.engine

    @property
    def trouble(self) -> str | None:
        """Why it does not answer now; None when it is ready."""
        return None if self._worker else self._reason

    @property
    def process_id(self) -> int | None:
        """Of its worker, while there is one."""
        worker = self._worker
        return worker.process.pid if worker else None

    def predict(self, frames: Pixels) -> Outputs:
        """Run uint8 [N, ...] frames; ModelDown while there is no worker. A reload loses none of them."""
        worker, asked = self._worker, None
        while worker is not None and worker is not asked:
            with suppress(Moved):
                return self._heard(worker.begin(frames))
            worker, asked = self._worker, worker
        raise self._down()

    def begin(self, frames: Pixels) -> Callable[[], Outputs]:
        """Ask, and return what waits for the outputs; what goes wrong is told there."""
        if worker := self._worker:
            with suppress(Moved):
                return partial(self._followed, worker.begin(frames), frames)
        return partial(self.predict, frames)

    def _followed(self, outputs: Callable[[], Outputs], frames: Pixels) -> Outputs:
        """What was asked for, of the next worker where the one that was asked goes in order."""
        with suppress(Moved):
            return self._heard(outputs)
        return self.predict(frames)

    def _heard(self, outputs: Callable[[], Outputs]) -> Outputs:
        try:
            return outputs()
        except NoEntropy as error:
            self.alarm = error.message
            raise

    def check_exchange(self, new: About) -> None:
        """UserError unless cameras, clients and sinks need not notice that it takes the place of what was served."""
        if self._about is None:
            return
        old, given = self._about.manifest, new.manifest
        for what, before, after in (("frame", old.frame, given.frame), ("outputs", old.outputs, given.outputs)):
            if before != after:
                hint = f"before: {before}; after: {after}; restart the daemon to run it"
                raise UserError(f"{self.name}: the new bundle has another {what}", hint)

    def switch(self, worker: WorkerProcess, about: About) -> None:
        """Let all further frames go to this worker."""
        self._about, self._worker = about, worker

    def down(self, reason: str) -> None:
        """Answer no frames, for this reason."""
        self._reason, self._worker = reason, None

    def _down(self) -> ModelDown:
        return ModelDown(f"{self.name}: {self._reason}", HINT)
