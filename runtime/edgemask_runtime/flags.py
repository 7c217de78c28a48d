"""What the command line asks for a bundle, as the same settings that a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemask_runtime.cameras import source_for
from edgemask_runtime.engines import ENGINES
from edgemask_runtime.errors import UserError, unknown
from edgemask_runtime.sealed import open_stored
from edgemask_runtime.settings import (
    DoorSettings,
    ModelSettings,
    PipelineSettings,
    Settings,
    SinkPart,
    SourcePart,
    read_settings,
)
from edgemask_runtime.sinks import sink_settings

NO_HTTP = "none"
DEFAULT_LISTEN = "127.0.0.1:8700"
SETTINGS_SUFFIXES = (".toml", ".json")


@dataclass(frozen=True)
class Flags:
    """The flags of `edgemaskd run`; None and False are those that were not given."""

    path: Path
    source: Path | None = None
    listen: str | None = None
    max_frames: int | None = None
    fps: float | None = None
    loop: bool = False
    threads: int | None = None
    output: Path | None = None
    format: str | None = None
    engine: str | None = None
    key: Path | None = None


def settings_for(flags: Flags) -> Settings:
    """Read the settings file that is to be run, or make settings for the bundle that is."""
    if flags.path.suffix not in SETTINGS_SUFFIXES:
        return _for_bundle(flags)
    if given := _given(flags, "source listen max_frames fps loop threads output format engine key"):
        raise UserError(f"--{given} does not go with a settings file", hint=f"state it in {flags.path}")
    return read_settings(flags.path)


def _for_bundle(flags: Flags) -> Settings:
    listen = flags.listen or DEFAULT_LISTEN
    if flags.source is None and listen == NO_HTTP:
        raise UserError("nothing to do: no --source and no HTTP", hint="give --source PATH or --listen 127.0.0.1:8700")
    if flags.source is None and (alone := _given(flags, "max_frames fps loop output format")):
        raise UserError(f"--{alone} needs --source")
    if flags.engine is not None and flags.engine not in ENGINES:
        raise unknown("engine", flags.engine, ENGINES)
    name = open_stored(flags.path).manifest.name
    model = ModelSettings(name, flags.path, flags.engine, flags.threads or 1, flags.key)
    http = None if listen == NO_HTTP else DoorSettings(listen)
    pipelines = (_pipeline(flags, name, flags.source),) if flags.source else ()
    return Settings(1, http, None, (model,), pipelines)


def _pipeline(flags: Flags, name: str, source: Path) -> PipelineSettings:
    camera = SourcePart(*source_for(source, fps=flags.fps, loop=flags.loop))
    sink = flags.format or "jsonl"
    sinks = (SinkPart(sink, sink_settings(sink)(flags.output)),)
    return PipelineSettings(name, name, camera, sinks, max_frames=flags.max_frames)


def _given(flags: Flags, names: str) -> str | None:
    """The first of these flags that was given, as it is written."""
    given = [name for name in names.split() if getattr(flags, name) not in (None, False)]
    return given[0].replace("_", "-") if given else None
