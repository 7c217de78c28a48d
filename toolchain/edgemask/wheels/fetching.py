"""Wheels for a board of another kind than this machine, through pip, which runs nothing of what it fetches."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgemask.errors import UserError, one_line
from edgemask.target import Target
from edgemask.wheels.glibc import newest
from edgemask.wheels.lock import Pin, lock_for
from edgemask.wheels.store import cache, keep, kept, workspace

GLIBC_MINOR = 28
_NETWORK = ("Retrying", "ConnectionError", "connection", "Max retries", "Name or service", "timed out", "SSLError")
_NAMED = re.compile(r"([\w.-]+)==([\w.]+)")
_REACH = "pip must reach a package index, or a folder of wheels (PIP_FIND_LINKS), once; later builds need neither"
Progress = Callable[[str], None]


def wheels_for(
    target: Target,
    python: str,
    wanted: Iterable[str] = (),
    *,
    offline: bool = False,
    progress: Progress = lambda _: None,
) -> list[Path]:
    """The wheels that edgemask-runtime with the extras `wanted` needs on this board's CPython, sorted by name.

    Packages that come from the board's own system are left out. What is not in the cache is fetched, unless `offline`.
    `progress` is told each package that is being fetched. Every wheel's digest is compared with the lock's, each time.
    """
    arch = arch_of(target)
    pins = pins_for(target, python, wanted)
    found = {pin: kept(pin) for pin in pins}
    missing = [pin for pin, path in found.items() if path is None]
    if missing and offline:
        raise _not_kept(missing, arch, python)
    if missing:
        found |= fetch(missing, arch, python, progress)
    return sorted((path for path in found.values() if path), key=lambda path: path.name)


def glibc_for(target: Target, wanted: Iterable[str] = ()) -> str:
    """The oldest glibc ("2.34") that all those wheels run with, whatever their names promise."""
    extras = set(wanted)
    return newest(pin.glibc for python in target.pythons for pin in pins_for(target, python, extras))


def pins_for(target: Target, python: str, wanted: Iterable[str]) -> tuple[Pin, ...]:
    """What `wheels_for` gives, as it is pinned."""
    return lock_for(arch_of(target), python, set(wanted) - set(target.packages.system))


def arch_of(target: Target) -> str:
    """The target's architecture: this machine's, where any will do."""
    return platform.machine() if target.arch == "any" else target.arch


def fetch(pins: Sequence[Pin], arch: str, python: str, progress: Progress = lambda _: None) -> dict[Pin, Path]:
    """Fetch these wheels into the cache; UserError that names the first that cannot be had."""
    with workspace() as folder:
        wanted = folder / "wanted.txt"
        wanted.write_text("\n".join(map(str, pins)), encoding="utf-8")
        run_pip(["--require-hashes", "--requirement", str(wanted)], folder, arch, python, len(pins), progress)
        for wheel in folder.glob("*.whl"):
            keep(wheel)
    found = {pin: path for pin in pins if (path := kept(pin))}
    if lost := [pin for pin in pins if pin not in found]:
        raise _refused(lost[0].name, arch, python, "pip fetched no file with the pinned digest", _REACH)
    return found


def run_pip(
    what: Sequence[str], folder: Path, arch: str, python: str, count: int, progress: Progress = lambda _: None
) -> None:
    """Run `pip download` for a foreign platform into `folder`; `what` are its requirements."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-cache-dir"]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
        "--retries=2",
        *platform_options(arch, python),
    ]
    with (folder / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(
            [*command, f"--dest={folder}", *what], stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as pip:
            lines = (line for line in pip.stdout or () if line.startswith(("Collecting ", "Processing ")))
            for number, line in enumerate(lines, 1):
                progress(f"{_package(line)} ({number} of {count})")
        errors.seek(0)
        if pip.returncode:
            raise _failure(errors.read(), arch, python)


def platform_options(arch: str, python: str) -> list[str]:
    """pip's words for a CPython on a Linux of this architecture with glibc 2.28: no wheel that needs a newer one."""
    tags = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC_MINOR, 4, -1)]
    tags += [f"{legacy}_{arch}" for legacy in ("manylinux2014", "manylinux2010", "manylinux1")]
    abi = f"cp{python.replace('.', '')}"
    options = [f"--python-version={python}", "--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none"]
    return [*(f"--platform={tag}" for tag in tags), *options]


def _package(line: str) -> str:
    """Name and version in a line of pip's: of a requirement, or of a file in a folder of wheels."""
    what = line.split()[1]
    return " ".join(what.rpartition("/")[2].split("-")[:2]) if line[0] == "P" else what.replace("==", " ")


def _failure(errors: str, arch: str, python: str) -> UserError:
    """What pip's complaint means; it names the package, the board and what to do."""
    lines = [line[7:] for line in errors.splitlines() if line.startswith("ERROR: ") and "Ignored the" not in line]
    named = _NAMED.search(errors)
    if "No module named pip" in errors:
        return _refused("wheels", arch, python, "this Python has no pip", "python -m ensurepip")
    what = f"{named[1]} {named[2]}" if named else "wheels"
    if "HASHES" in errors:
        hint = "do not use it; look whether the index, or a proxy on the way, is what it should be"
        return _refused(what, arch, python, "its digest is not the pinned one", hint)
    if any(word in errors for word in _NETWORK):
        return _refused(what, arch, python, "no package index could be reached", _REACH)
    return _refused(what, arch, python, one_line(Exception(lines[0] if lines else errors[-300:])), _REACH)


def _refused(what: str, arch: str, python: str, why: str, hint: str) -> UserError:
    return UserError(f"cannot fetch {what} for {arch}, CPython {python}: {why}", hint)


def _not_kept(missing: Sequence[Pin], arch: str, python: str) -> UserError:
    names = ", ".join(f"{pin.name} {pin.version}" for pin in missing)
    return UserError(
        f"offline, and {len(missing)} wheels for {arch}, CPython {python} are not in {cache()}: {names}",
        "build once without --offline, on a machine that reaches a package index",
    )
