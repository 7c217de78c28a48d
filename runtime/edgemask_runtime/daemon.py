"""edgemaskd: runs a bundle on a source and serves it on loopback; makes keys."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from edgemask_runtime import __version__
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.errors import UserError, run_main
from edgemask_runtime.keys import new_key
from edgemask_runtime.service import Options, serve

DEFAULT_LISTEN = "127.0.0.1:8700"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="edgemaskd: %(message)s")
    given = {name: value for name, value in vars(parsed).items() if name != "command"}
    if parsed.command == "new-key":
        return run_main(lambda: _new_key(**given))
    return run_main(lambda: serve(Options(**given)))


def _new_key(bundle: Path, output: Path) -> None:
    """Write a fresh key for a bundle that takes one."""
    manifest = Bundle.open(bundle).manifest
    if manifest.key is None or manifest.key.published:
        raise UserError(f"{bundle}: takes no key", hint="only keyed masks take one, unless it was published")
    new_key(output, manifest.key.bytes)
    print(f"{output}: {manifest.key.bytes} bytes; only a model trained with this key answers rightly under it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgemaskd", description="Run an Edgemask bundle.")
    parser.add_argument("--version", action="version", version=f"edgemaskd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new-key", help="make a key for a bundle with keyed masks")
    new.add_argument("bundle", type=Path, help="the .edgemask file")
    new.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the key")
    run = commands.add_parser("run", help="run a bundle until it is stopped")
    run.add_argument("bundle", type=Path, help="the .edgemask file")
    run.add_argument("--key", type=Path, metavar="FILE", help="the key of keyed masks; its owner's alone (chmod 600)")
    run.add_argument("--source", type=Path, help="a folder of images, an image or a video; stops when it ends")
    run.add_argument("--listen", default=DEFAULT_LISTEN, help="HTTP address on loopback, or none (default %(default)s)")
    run.add_argument("--max-frames", type=_count, metavar="N", help="stop after N frames of the source")
    run.add_argument("--fps", type=_pace, metavar="F", help="the source's pace; 0 is as fast as frames are answered")
    run.add_argument("--loop", action="store_true", help="begin the source again when it ends")
    run.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of the engine (default 1)")
    run.add_argument("--output", type=Path, metavar="FILE", help="append the answers to FILE instead of stdout")
    run.add_argument(
        "--format", choices=("jsonl", "text"), default="jsonl", help="how answers are written (default %(default)s)"
    )
    run.add_argument("--engine", metavar="NAME", help="another engine for the bundle's model format")
    return parser


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
