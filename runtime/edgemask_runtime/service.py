"""The daemon's life: open everything, run until the source ends or a signal comes, stop in order."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from edgemask_runtime.bundle import Bundle
from edgemask_runtime.cameras import open_source
from edgemask_runtime.cascade import open_bundle
from edgemask_runtime.errors import EXIT_CANCELLED, EXIT_OK, UserError
from edgemask_runtime.pipeline import Line
from edgemask_runtime.predictor import Served
from edgemask_runtime.sinks import SinkContext, open_sink, sink_settings

NO_HTTP = "none"

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    bundle: Path
    source: Path | None
    listen: str
    max_frames: int | None
    fps: float | None
    loop: bool
    threads: int
    output: Path | None
    format: str
    engine: str | None
    key: Path | None


def serve(options: Options) -> int:
    """Run the bundle and return the exit code; UserError before anything starts when something is amiss."""
    _check(options)
    # A SimpleQueue, because its put may be called from a signal handler while the main thread waits in get.
    reasons: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: reasons.put(received))
    bundle = Bundle.open(options.bundle)
    predictor = open_bundle(bundle, engine=options.engine, threads=options.threads, key=options.key)
    with ExitStack() as running:
        _start(predictor, options, reasons, running)
        reason = reasons.get()
    return EXIT_CANCELLED if reason == signal.SIGINT else EXIT_OK


def _check(options: Options) -> None:
    if options.source is None and options.listen == NO_HTTP:
        raise UserError("nothing to do: no --source and no HTTP", hint="give --source PATH or --listen 127.0.0.1:8700")
    alone = [name for name in ("max_frames", "fps", "loop", "output") if getattr(options, name) not in (None, False)]
    if options.source is None and alone:
        raise UserError(f"--{alone[0].replace('_', '-')} needs --source")


def _start(predictor: Served, options: Options, reasons: SimpleQueue[int], running: ExitStack) -> None:
    """Open what can fail, then start it; `running` stops it in the reverse order."""
    line = _open_line(predictor, options, options.source, reasons) if options.source else None
    if options.listen != NO_HTTP:
        _start_http(predictor, options.listen, running)
    engine, manifest = predictor.engine, predictor.manifest
    log.info("%s for %s on %s, %s", manifest.name, manifest.target, engine, engine.provider)
    if line:
        running.callback(lambda: log.info("%s", line.summary()))
        running.callback(line.stop)
        line.start()


def _open_line(predictor: Served, options: Options, source: Path, reasons: SimpleQueue[int]) -> Line:
    camera = open_source(source, predictor.manifest.frame, fps=options.fps, loop=options.loop)
    context = SinkContext(predictor.manifest.name, predictor.manifest)
    sink = open_sink(options.format, sink_settings(options.format)(options.output), context)
    return Line(context.pipeline, predictor, camera, [sink], lambda: reasons.put(0), max_frames=options.max_frames)


def _start_http(predictor: Served, listen: str, running: ExitStack) -> None:
    # Why here: without HTTP neither uvicorn nor asyncio is loaded.
    from edgemask_runtime.api.control import Control
    from edgemask_runtime.api.doors import Doors
    from edgemask_runtime.api.guard import Guard
    from edgemask_runtime.api.http import Api
    from edgemask_runtime.api.regions import Regions
    from edgemask_runtime.api.server import Server, bind, url

    bound = bind(listen)
    regions = Regions()
    running.callback(regions.unregister)
    api = Api(Control(Doors({predictor.manifest.name: predictor}), regions), Guard())
    running.callback(Server(api, bound).close)
    log.info("listening on %s", url(bound))
