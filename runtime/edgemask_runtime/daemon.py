"""edgemaskd: runs bundles on sources, serves them and tells sinks; makes keys."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from edgemask_runtime import __version__
from edgemask_runtime.errors import UserError, run_main
from edgemask_runtime.files import write_atomic
from edgemask_runtime.flags import DEFAULT_LISTEN, Flags, settings_for
from edgemask_runtime.keys import new_key
from edgemask_runtime.notify import start_logging
from edgemask_runtime.sealed import open_stored
from edgemask_runtime.service import check, serve
from edgemask_runtime.settings import read_settings
from edgemask_runtime.sinks import sink_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parsed = vars(_parser().parse_args(arguments))
    start_logging()
    commands: dict[str, Callable[..., int | None]] = {
        "run": _run,
        "check": _check,
        "warm-up": _warm_up,
        "cameras": _cameras,
        "bench": _bench,
        "dbc": _dbc,
        "new-key": _new_key,
    }
    command = commands[parsed.pop("command")]
    return run_main(lambda: command(**parsed))


def _run(**given: object) -> int:
    """Run a bundle or a settings file until it is stopped."""
    flags = Flags(**given)  # type: ignore[arg-type]
    return serve(settings_for(flags), str(flags.path))


def _check(settings: Path) -> None:
    """Say what a settings file would run; start nothing."""
    read = read_settings(settings)
    manifests = check(read, str(settings))
    for model in read.models:
        manifest = manifests[model.name]
        print(f"model {model.name}: {manifest.name} for {manifest.target}, {model.bundle}")
    for pipeline in read.pipelines:
        sinks = ", ".join(sink.kind for sink in pipeline.sinks) or "no sink"
        print(f"pipeline {pipeline.name}: {pipeline.source.kind} -> {pipeline.model} -> {sinks}")
    for name, door in (("http", read.http), ("grpc", read.grpc)):
        if door:
            print(f"{name}: {door.listen}")


def _warm_up(settings: Path, slot: Path | None, as_json: bool) -> None:
    """Start every model of a settings file once, and end them again."""
    # Why here: only an installation needs it.
    from edgemask_runtime.warmup import teller, warm_up, within

    read = read_settings(settings)
    found = warm_up(within(read, slot) if slot else read, str(settings), teller(as_json))
    engines = [f"model {name}: {model['engine']}, {model['provider']}" for name, model in found["models"].items()]
    print(json.dumps({"warm": found}) if as_json else "\n".join(engines))


def _cameras(bundle: Path | None, fps: float | None, as_json: bool) -> None:
    """Say what this machine can look through, and what a bundle would take of it."""
    # Why here: it starts helpers, which nothing else needs.
    from edgemask_runtime.cameras.survey import survey

    found = survey(open_stored(bundle).manifest.frame.format if bundle else None, fps)
    print(found.to_json() if as_json else found)


def _bench(bundle: Path, runs: int, threads: int, as_json: bool) -> None:
    """Time a bundle's model on this machine."""
    # Why here: nothing else needs it.
    from edgemask_runtime.cascade import engine_folder
    from edgemask_runtime.service import engine_cache
    from edgemask_runtime.timing import as_text, time_model

    opened = open_stored(bundle)
    manifest = opened.manifest
    cache = engine_cache() if "tensorrt" in manifest.providers else None
    kept = engine_folder(cache, manifest) if cache else None
    told = time_model(manifest, opened.read(manifest.model.file), runs, threads, cache=kept)
    print(json.dumps(told) if as_json else as_text(told))


def _dbc(bundle: Path, output: Path) -> None:
    """Write what a bundle may send on a CAN bus, for the tools of whoever receives it."""
    # Why here: it needs cantools.
    sink_settings("can")
    from edgemask_runtime.sinks.can_database import dbc_of

    manifest = open_stored(bundle).manifest
    write_atomic(output, dbc_of(manifest).encode("cp1252"))
    print(f"{output}: {', '.join(f'{record.message} {record.id:#x}' for record in manifest.can)}")


def _new_key(bundle: Path, output: Path) -> None:
    """Write a fresh key for a bundle that takes one."""
    manifest = open_stored(bundle).manifest
    if manifest.key is None or manifest.key.published:
        raise UserError(f"{bundle}: takes no key", hint="only keyed masks take one, unless it was published")
    new_key(output, manifest.key.bytes)
    print(f"{output}: {manifest.key.bytes} bytes; only a model trained with this key answers rightly under it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgemaskd", description="Run Edgemask bundles.")
    parser.add_argument("--version", action="version", version=f"edgemaskd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new-key", help="make a key for a bundle with keyed masks")
    new.add_argument("bundle", type=Path, help="the .edgemask file")
    new.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the key")
    dbc = commands.add_parser("dbc", help="write the DBC of what a bundle may send on a CAN bus")
    dbc.add_argument("bundle", type=Path, help="the .edgemask file")
    dbc.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the DBC")
    bench = commands.add_parser("bench", help="time a bundle's model on this machine, step by step")
    bench.add_argument("bundle", type=Path, help="the .edgemask file")
    bench.add_argument("--runs", type=_count, default=200, metavar="N", help="inferences (default 200)")
    bench.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of the engine (default 1)")
    bench.add_argument("--json", action="store_true", dest="as_json", help="one JSON object")
    check = commands.add_parser("check", help="read device settings and their bundles, and start nothing")
    check.add_argument("settings", type=Path, help="a .toml or .json file")
    cameras = commands.add_parser(
        "cameras", help="list this machine's cameras, their formats, and the kinds of sources"
    )
    cameras.add_argument("bundle", type=Path, nargs="?", help="an .edgemask file: say which format it would take")
    cameras.add_argument("--fps", type=_pace, metavar="F", help="the pace that is wanted of it")
    cameras.add_argument("--json", action="store_true", dest="as_json", help="one JSON object")
    warm = commands.add_parser("warm-up", help="start the models of device settings once, build what engines build")
    warm.add_argument("settings", type=Path, help="a .toml or .json file")
    warm.add_argument("--slot", type=Path, metavar="FOLDER", help="take what lies under `current` from this slot")
    warm.add_argument("--json", action="store_true", dest="as_json", help="JSON lines, the result the last")
    _add_run(commands.add_parser("run", help="run a bundle or device settings until it is stopped"))
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "path", type=Path, help="an .edgemask file, or device settings (.toml, .json) instead of all flags"
    )
    run.add_argument("--key", type=Path, metavar="FILE", help="the key of keyed masks; its owner's alone (chmod 600)")
    run.add_argument(
        "--source", type=Path, help="a folder of images, an image or a video, which stops when it ends; /dev/video0"
    )
    run.add_argument("--listen", help=f"HTTP address on loopback, or none (default {DEFAULT_LISTEN})")
    run.add_argument("--max-frames", type=_count, metavar="N", help="stop after N frames of the source")
    run.add_argument("--fps", type=_pace, metavar="F", help="the source's pace; 0 is as fast as frames are answered")
    run.add_argument("--loop", action="store_true", help="begin the source again when it ends")
    run.add_argument("--threads", type=_count, metavar="N", help="threads of the engine (default 1)")
    run.add_argument("--output", type=Path, metavar="FILE", help="append the answers to FILE instead of stdout")
    run.add_argument("--format", choices=("jsonl", "text"), help="how answers are written (default jsonl)")
    run.add_argument("--engine", metavar="NAME", help="another engine for the bundle's model format")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = -1.0
    if not 0 <= pace <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1000")
    return pace


if __name__ == "__main__":
    sys.exit(main())
