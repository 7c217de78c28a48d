"""The daemon's life: open everything, run until the sources end or a signal comes, stop in order."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from edgemask_runtime.cameras import open_camera
from edgemask_runtime.confinement import give_back_memory
from edgemask_runtime.errors import EXIT_ALARM, EXIT_CANCELLED, EXIT_OK, UserError
from edgemask_runtime.limits import check_manifests, tightened
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.notify import notify, reloading, watchdog_s
from edgemask_runtime.pipeline import Pipeline
from edgemask_runtime.predictor import Served
from edgemask_runtime.reload import Reloader
from edgemask_runtime.sealed import open_stored
from edgemask_runtime.settings import HINT, ModelSettings, PipelineSettings, Settings, SinkPart
from edgemask_runtime.sinks import Sink, SinkContext, open_sink
from edgemask_runtime.strict_json import Faults
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.telemetry import Telemetry
from edgemask_runtime.worker_process import ModelOptions

STATUS_S = 10.0
TRIM_S = 60.0
HUNG_S = 120.0
BUILD_LIMIT_S = 1800.0
"""TensorRT needed 9.5 minutes for one model on an Orin."""
STATE_FOLDER = "STATE_DIRECTORY"
ENGINES = "engines"
PIPELINE_ENDED, RELOADED = 0, -1
ENDING = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("edgemaskd")


def serve(settings: Settings, where: str) -> int:
    """Run the settings and return the exit code; UserError before anything starts when something is amiss."""
    return Service(settings, where).run()


def check(settings: Settings, where: str) -> dict[str, Manifest]:
    """Return the models' manifests by name; one UserError with every bundle and setting that is at fault."""
    faults = Faults(where)
    manifests: dict[str, Manifest] = {}
    for index, model in enumerate(settings.models):
        manifest = _manifest(model, f"$.models[{index}].bundle", faults)
        manifests |= {model.name: manifest} if manifest else {}
    check_manifests(settings, manifests, faults)
    if faults:
        raise faults.error(HINT)
    return manifests


class Service:
    """The models, pipelines and servers of one daemon, and the loop of its main thread."""

    def __init__(self, settings: Settings, where: str) -> None:
        self._settings, self._where = settings, where
        self.telemetry = Telemetry()
        self._pipelines: list[Pipeline] = []
        self._screens: dict[str, Any] = {}
        # A SimpleQueue, because its put may be called from a signal handler while the main thread waits in get.
        self._reasons: SimpleQueue[int] = SimpleQueue()
        self._told_s = self._trimmed_s = time.monotonic()

    def run(self) -> int:
        """Open everything, serve, stop; the exit code."""
        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, lambda received, _: self._reasons.put(received))
        self._manifests = check(self._settings, self._where)
        with ExitStack() as running:
            self._start(running)
            notify("READY=1", f"STATUS={self._status()}")
            reason = self._wait()
            notify("STOPPING=1", "STATUS=stopping")
        for pipeline in self._pipelines:
            if pipeline.error:
                raise pipeline.error
        if self.telemetry.alarm:
            return EXIT_ALARM
        return EXIT_CANCELLED if reason == signal.SIGINT else EXIT_OK

    def _start(self, running: ExitStack) -> None:
        """Open what can fail, then start it; `running` stops it in the reverse order."""
        options = [model_options(model, self._manifests[model.name]) for model in self._settings.models]
        supervisor = running.enter_context(Supervisor(options, meanwhile=self._import_doors))
        self.telemetry.models = models = supervisor.models
        self._reloader = Reloader(
            self._settings, self._where, supervisor, self.telemetry, lambda: self._reasons.put(RELOADED)
        )
        running.callback(self._reloader.close)
        for pipeline in self._settings.pipelines:
            self._pipelines.append(self._open(pipeline, models[pipeline.model]))
        self._open_doors(supervisor, running)
        for name, served in models.items():
            log.info("%s for %s on %s, %s", name, served.manifest.target, served.engine, served.engine.provider)
        running.callback(self._stop_pipelines)
        for opened in self._pipelines:
            opened.start()

    def _open(self, settings: PipelineSettings, served: Served) -> Pipeline:
        opener = partial(open_camera, settings.source.kind, settings.source.settings, served.manifest.frame)
        manifest = tightened(settings, served.manifest)
        context = SinkContext(settings.name, manifest, lambda: tightened(settings, served.manifest))
        sinks = {name: open_sink(part.kind, part.settings, context) for name, part in named(settings.sinks).items()}
        sinks |= self._screen(context)
        pipeline = Pipeline(settings, served, opener, sinks, self.telemetry, lambda: self._reasons.put(PIPELINE_ENDED))
        pipeline.open()
        return pipeline

    def _screen(self, context: SinkContext) -> dict[str, Sink]:
        """Where the page sees a pipeline's answers, if there is a page."""
        if not self._settings.http:
            return {}
        # Why here: without servers nothing of theirs is loaded.
        from edgemask_runtime.web.screen import Screen

        self._screens[context.pipeline] = screen = Screen(context)
        return {"page": screen}

    def _import_doors(self) -> None:
        """Load what the servers need while the models start: each takes about as long as the other."""
        if self._settings.http or self._settings.grpc:
            import edgemask_runtime.api.opening  # noqa: F401

    def _open_doors(self, supervisor: Supervisor, running: ExitStack) -> None:
        doors = {"http": self._settings.http, "grpc": self._settings.grpc}
        if not any(doors.values()):
            return
        # Why here: without servers neither uvicorn nor asyncio is loaded.
        from edgemask_runtime.api.opening import control_of, open_door
        from edgemask_runtime.api.repository import Installed
        from edgemask_runtime.web.dashboard import Dashboard

        dashboard = Dashboard(self.telemetry, self._screens)
        control = control_of(
            supervisor.models, Installed(supervisor), alarm=lambda: self.telemetry.alarm, dashboard=dashboard
        )
        for protocol, settings in doors.items():
            if settings:
                opened = open_door(protocol, control, settings)
                running.callback(opened.close)
                log.info("listening on %s", opened.url)

    def _stop_pipelines(self) -> None:
        for pipeline in self._pipelines:
            pipeline.halt()
        for pipeline in self._pipelines:
            pipeline.join()
            log.info("%s: %s", pipeline.name, pipeline.summary())

    def _wait(self) -> int:
        """Keep the service manager informed until a signal comes or the last pipeline has ended."""
        left, limit_s = len(self._pipelines), watchdog_s()
        tick_s = min(STATUS_S, limit_s / 2) if limit_s else STATUS_S
        while True:
            reason = self._reason(tick_s)
            left -= reason == PIPELINE_ENDED
            if reason in ENDING or (reason == PIPELINE_ENDED and left == 0):
                return reason or PIPELINE_ENDED
            if reason == signal.SIGHUP:
                reloading()
                self._reloader.begin()
            elif reason == RELOADED:
                notify("READY=1")
            self._sign_of_life()
            self._upkeep()

    def _reason(self, timeout_s: float) -> int | None:
        try:
            return self._reasons.get(timeout=timeout_s)
        except Empty:
            return None

    def _upkeep(self) -> None:
        """Tell the service manager what was done, and the system what memory is free, each now and then."""
        now_s = time.monotonic()
        if now_s - self._told_s > STATUS_S:
            self._told_s = now_s
            notify(f"STATUS={self._status()}")
        if now_s - self._trimmed_s > TRIM_S:
            # Why: what many threads freed lies between what they hold, and the heap would grow around it.
            self._trimmed_s = now_s
            give_back_memory()

    def _sign_of_life(self) -> None:
        """Reset the service manager's watchdog, unless a worker hangs where nothing but a new start helps."""
        hung = [pipeline.name for pipeline in self._pipelines if pipeline.busy_s() > HUNG_S]
        if hung:
            log.error("%s: hangs for more than %.0f s", ", ".join(hung), HUNG_S)
        else:
            notify("WATCHDOG=1")

    def _status(self) -> str:
        states = [f"{p.name} {p.tally.state}, {p.tally.answered} answered" for p in self._pipelines]
        return "; ".join(states) or "serving"


def _manifest(model: ModelSettings, path: str, faults: Faults) -> Manifest | None:
    try:
        return open_stored(model.bundle).manifest
    except UserError as error:
        faults.add(path, error.message)
        return None


def model_options(model: ModelSettings, manifest: Manifest) -> ModelOptions:
    """How a model's process is started; one whose engine has to be built first gets the time and a place for it."""
    given = {item.name: getattr(model, item.name) for item in dataclasses.fields(model)}
    if "tensorrt" not in manifest.providers:
        return ModelOptions(**given)
    return ModelOptions(**given, start_limit_s=BUILD_LIMIT_S, cache=engine_cache())


def engine_cache() -> Path | None:
    """Where what was built is kept, a folder for each bundle: in the folder that systemd gives the daemon."""
    folder = os.environ.get(STATE_FOLDER, "").partition(":")[0]
    if not folder:
        return None
    cache = Path(folder) / ENGINES
    cache.mkdir(exist_ok=True)
    return cache


def named(sinks: tuple[SinkPart, ...]) -> dict[str, SinkPart]:
    """The sinks by a name of their own: the kind, with a number where there are several of it."""
    made: dict[str, SinkPart] = {}
    for sink in sinks:
        number = sum(part.kind == sink.kind for part in made.values())
        made[f"{sink.kind}-{number + 1}" if number else sink.kind] = sink
    return made
