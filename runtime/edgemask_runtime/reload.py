"""Exchange bundles while the daemon runs: those whose files changed, one after the other, beside the frames."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from edgemask_runtime.bundle import payload_digest
from edgemask_runtime.errors import UserError
from edgemask_runtime.limits import check_manifests
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.sealed import open_stored
from edgemask_runtime.settings import HINT, ModelSettings, Settings
from edgemask_runtime.strict_json import Faults
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.telemetry import Telemetry

TOLD_TO_SINKS = ("labels", "max_age_ms")

log = logging.getLogger("edgemaskd")


class Reloader:
    """Looks at all bundles each time it is asked to; a bundle that does not fit leaves the old one running.

    `ended` is called after each round, from its thread.
    """

    def __init__(
        self, settings: Settings, where: str, supervisor: Supervisor, telemetry: Telemetry, ended: Callable[[], None]
    ) -> None:
        self._settings, self._where = settings, where
        self._supervisor, self._telemetry, self._ended = supervisor, telemetry, ended
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = Thread(target=self._run, name="reload", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Look at all bundles, after what is under way."""
        self._orders.put(True)

    def close(self) -> None:
        """Finish the round under way and end."""
        self._orders.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._orders.get():
            for model in self._settings.models:
                self._look_at(model)
            self._ended()

    def _look_at(self, model: ModelSettings) -> None:
        try:
            if self._exchange(model):
                version = self._supervisor.models[model.name].digest[:12]
                self._telemetry.tell("reloaded", model.name, f"{model.bundle}, {version}, runs now", level=logging.INFO)
        except UserError as error:
            text = f"{error.message}; the bundle that ran before runs on"
            self._telemetry.tell("reload-refused", model.name, text, level=logging.ERROR)

    def _exchange(self, model: ModelSettings) -> bool:
        """Whether another bundle runs now; UserError where there is one that may not."""
        manifest = open_stored(model.bundle).manifest
        running = self._supervisor.models[model.name]
        if payload_digest(manifest) == running.digest and running.trouble is None:
            return False
        self._check(model, running.manifest, manifest)
        self._supervisor.reload(model.name, model.bundle)
        return True

    def _check(self, model: ModelSettings, old: Manifest, new: Manifest) -> None:
        """UserError unless the settings suit the new bundle, and sinks were told the same of the old one."""
        faults = Faults(self._where)
        check_manifests(self._settings, {model.name: new}, faults)
        if faults:
            raise faults.error(HINT)
        fed = any(pipeline.model == model.name and pipeline.sinks for pipeline in self._settings.pipelines)
        changed = [name for name in TOLD_TO_SINKS if getattr(old, name) != getattr(new, name)]
        if fed and changed:
            raise UserError(f"the new bundle's {changed[0]} is not the one that sinks were opened with", "restart")
