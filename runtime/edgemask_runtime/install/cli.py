"""edgemask-device: install, status, rollback, recover, uninstall, keys."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemask_runtime import __version__
from edgemask_runtime.errors import UserError, report, run_main
from edgemask_runtime.install.installing import install, rollback
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.lock import Busy, locked
from edgemask_runtime.install.recovery import recover
from edgemask_runtime.install.removal import uninstall
from edgemask_runtime.install.services import Services, systemd
from edgemask_runtime.install.status import status
from edgemask_runtime.install.switching import Device
from edgemask_runtime.install.trusting import Order
from edgemask_runtime.release import title
from edgemask_runtime.trust import Keys

UMASK = 0o022
Started = Callable[[], Services]


def main(
    arguments: list[str] | None = None, *, layout: Layout | None = None, services: Started = systemd, **options: Any
) -> int:
    """Run the command line and return the exit code: 0, 2 refused, 5 returned to the version before."""
    parsed = vars(_parser().parse_args(arguments))
    verb, as_json = parsed.pop("verb"), parsed.pop("json")
    # Why: whoever installs may keep all that they write to themselves, and the daemon has to read this.
    os.umask(UMASK)
    verbs: dict[str, Callable[..., int]] = {
        "install": _install,
        "status": _status,
        "rollback": _rollback,
        "recover": _recover,
        "uninstall": _uninstall,
        "keys": _keys,
    }

    def run() -> int:
        device = Device(layout or Layout(), services(), _teller(as_json), **options)
        return verbs[verb](device, _Printer(as_json), **parsed)

    return run_main(lambda: _uninterrupted(run))


def _uninterrupted(run: Callable[[], int]) -> int:
    """Run to the end though the connection breaks off; being ended is an interrupt, which is undone."""
    with suppress(ValueError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except OSError as error:
        hint = "a device is changed as root: sudo; `df -h` shows whether a disk is full"
        raise UserError(f"{error.filename or 'the system'}: {error.strerror or error}", hint) from error


class _Printer:
    """Says what came of it: as JSON, or in words."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, value: Any, words: str) -> int:
        _print(json.dumps(value) if self.as_json else words)
        return 0


def _install(device: Device, printer: _Printer, **given: Any) -> int:
    installed = install(device, Order(**given))
    return printer.say({"installed": installed}, f"{title(installed)} is installed and runs")


def _rollback(device: Device, printer: _Printer) -> int:
    running = rollback(device)
    return printer.say({"installed": running}, f"{title(running)} runs again")


def _recover(device: Device, printer: _Printer, boot: bool) -> int:
    try:
        with locked(device.layout, "recover"):
            done = recover(device, boot=boot)
    except Busy as busy:
        if not boot:
            raise
        report(busy)
        return 0
    return printer.say({"recovered": done}, "\n".join(done) or "nothing to recover")


def _uninstall(device: Device, printer: _Printer, purge: bool) -> int:
    removed = uninstall(device, purge=purge)
    return printer.say({"removed": removed}, "\n".join(f"removed {path}" for path in removed) or "nothing is installed")


def _keys(device: Device, printer: _Printer) -> int:
    keys = Keys.read(device.layout.keys)
    lines = [f"{key}  by {key.enrolled_by}" for key in keys.enrolled] + [f"{key}  revoked" for key in keys.revoked]
    value = {"enrolled": [asdict(key) for key in keys.enrolled], "revoked": list(keys.revoked)}
    return printer.say(value, "\n".join(lines) or "no key is enrolled: --enrol NAME.pub of the next install enrols one")


def _status(device: Device, printer: _Printer) -> int:
    told = status(device.layout, device.services)
    return printer.say(told, "\n".join(_lines(told)))


def _lines(told: dict[str, Any]) -> list[str]:
    installed, previous, service, failure = (told[key] for key in ("installed", "previous", "service", "failure"))
    lines = [f"{title(installed)}, slot {installed['slot']}, since {installed['since']}" if installed else "nothing"]
    lines += [f"model {name}: {engine}" for name, engine in (installed or {"engine": {}})["engine"].items()]
    lines += [f"service: {service['state']} ({service['detail']}), {service['restarts']} restarts, {told['health']}"]
    lines += [f"before: {title(previous)}: `edgemask-device rollback` goes there"] if previous else []
    lines += [f"floor: serial {told['floor']}", f"disk: {told['disk']['free_bytes'] >> 20} MB free"]
    lines += [f"clock: {told['clock']['behind_s']} s behind what it was"] if told["clock"]["behind_s"] else []
    busy = told["busy"]
    lines += [f"under way: `{busy['verb']}` of process {busy['pid']}, since {busy['since']}"] if busy else []
    lines += [f"failed last: {failure['release']}, {failure['at']}: {failure['cause']}"] if failure else []
    lines += [f"trouble: {told['keys']['trouble']}"] if "trouble" in told["keys"] else []
    return lines + [f"trouble: {trouble}" for trouble in told["trouble"]]


def _teller(as_json: bool) -> Callable[[str, int, int], None]:
    def tell(step: str, done: int, of: int) -> None:
        parts = f" {100 * done // of} %" if of > 1 else ""
        _print(json.dumps({"step": step, "done": done, "of": of}) if as_json else f"{step}{parts}")

    return tell


def _print(text: str) -> None:
    # Why: whoever asked may be gone, and a change that began is brought to its end all the same.
    with suppress(OSError):
        print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgemask-device", description="Install Edgemask releases on this device.")
    parser.add_argument("--version", action="version", version=f"edgemask-device {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = {
        name: verbs.add_parser(name, help=text)
        for name, text in (
            ("install", "check a release, install it beside the version that runs, and switch when it is well"),
            ("status", "what runs, what is installed beside it, and what failed last"),
            ("rollback", "switch to the version before"),
            ("recover", "finish or undo what was cut off"),
            ("uninstall", "stop the daemon and remove everything"),
            ("keys", "the keys that this device trusts"),
        )
    }
    for verb in made.values():
        verb.add_argument("--json", action="store_true", help="JSON: progress one object a line, the result the last")
    made["recover"].add_argument("--boot", action="store_true", help="as the unit calls it: the daemon starts later")
    made["uninstall"].add_argument("--purge", action="store_true", help="/etc/edgemask, too: settings and keys")
    _add_install(made["install"])
    return parser


def _add_install(install: argparse.ArgumentParser) -> None:
    install.add_argument("release", type=Path, help="the .release file")
    install.add_argument("--sha256", metavar="HEX", help="the digest of the file, as whoever sent it states it")
    install.add_argument("--settings", type=Path, metavar="FILE", help="the owner's, in place of the release's: TOML")
    install.add_argument("--enrol", type=Path, metavar="PUB", help="a public key (NAME.pub) to trust from now on")
    install.add_argument(
        "--allow-dev-key", action="store_true", dest="allow_development", help="let --enrol enrol a development key"
    )
    install.add_argument(
        "--reset-keys",
        action="store_true",
        help="where keys.json cannot be read: believe the key of --enrol alone, and forget what was revoked",
    )
    install.add_argument(
        "--encrypt-models",
        action="store_true",
        dest="encrypt",
        help="encrypt the models with a key of this device, now and in every update",
    )


if __name__ == "__main__":
    sys.exit(main())
