"""A release into a slot: its files, an environment of its own with its wheels, and a warm-up of all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edgemask_runtime.archive import Archive, open_archive
from edgemask_runtime.errors import UserError
from edgemask_runtime.install.durable import make_folder
from edgemask_runtime.install.slots import VENV, Slot, kept
from edgemask_runtime.install.wheels import BLOCK_BYTES, Places, unpack_wheel, unpacked_bytes
from edgemask_runtime.release import KIND, MANIFEST, Environment, Release
from edgemask_runtime.trust.signatures import SIGNATURE_FILE

Tell = Callable[[str, int, int], None]
"""Hears of each step: what it is, how much is done, of how much."""
VENV_BYTES = 1 << 20
SPARE_BYTES = 16 << 20
MB = 1 << 20


def python_version() -> str:
    """This Python, as a release names its environments."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def check_space(release: Release, slot: Slot) -> None:
    """UserError unless the disk has room for the release, once the slot's old content is gone."""
    needed = _needed_bytes(release) + SPARE_BYTES
    free = shutil.disk_usage(_existing(slot.folder)).free + _used_bytes(slot.folder)
    if needed > free:
        message = f"{slot.folder}: {needed // MB} MB are needed, {free // MB} MB are free"
        raise UserError(
            message, "make room on the device: `df -h` shows the disks, `journalctl --vacuum-size=50M` helps"
        )


def unpack(release: Release, slot: Slot, tell: Tell) -> None:
    """Write all of the release into an empty slot. OSError and UserError leave it incomplete."""
    make_folder(slot.folder)
    environment = release.manifest.environments[python_version()]
    names = kept(release.manifest)
    total = sum(release.manifest.files[name].bytes for name in names)
    done = 0
    for name in names:
        tell("write", done, total)
        _copy(release, name, slot.folder / name)
        done += release.manifest.files[name].bytes
    (slot.folder / MANIFEST).write_bytes(release.signed)
    (slot.folder / SIGNATURE_FILE).write_bytes(release.signatures.to_bytes())
    _make_environment(release, environment, slot, tell)


def _copy(release: Release, name: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("wb") as file:
        for chunk in release.chunks(name):
            file.write(chunk)


def _make_environment(release: Release, environment: Environment, slot: Slot, tell: Tell) -> None:
    folder = slot.folder / VENV
    venv.EnvBuilder(system_site_packages=bool(environment.system), symlinks=True, with_pip=False).create(folder)
    modules = folder / "lib" / f"python{python_version()}" / "site-packages"
    places = Places(modules, slot.programs, folder, slot.programs / "python")
    for number, name in enumerate(environment.wheels):
        tell("unpack", number, len(environment.wheels))
        wheel = slot.folder / Path(name).name
        _copy(release, name, wheel)
        unpack_wheel(wheel, places)
        wheel.unlink()
    tell("compile", 0, 1)
    _compile(places)


def _compile(places: Places) -> None:
    """Compile the modules once and for all: the daemon may not write here."""
    # Why unchecked: nothing changes a slot, and looking for changes costs every start.
    how = "-q -j 0 --invalidation-mode unchecked-hash -x /tests?/".split()
    # Why within the folder: what is left out is told by the whole path.
    command = [str(places.python), "-I", "-m", "compileall", *how, "-p", str(places.modules), "."]
    done = subprocess.run(
        command,
        cwd=places.modules,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    # Why not the code: a package may carry a file for another version of Python.
    if "No space left on device" in done.stdout + done.stderr:
        raise OSError(28, os.strerror(28), str(places.modules))


def _needed_bytes(release: Release) -> int:
    environment = release.manifest.environments[python_version()]
    records = release.manifest.files
    plain = sum(_blocks(records[name].bytes) for name in kept(release.manifest))
    # Why the models: when they are encrypted, one after the other is there twice.
    models = (model.file for model in release.manifest.models.values())
    largest = max(records[name].bytes for name in (*environment.wheels, *models))
    return plain + largest + VENV_BYTES + sum(_unpacked(release, environment))


def _unpacked(release: Release, environment: Environment) -> Iterator[int]:
    with open_archive(release.path, KIND) as archive:
        for name in environment.wheels:
            yield _wheel_bytes(archive, name)


def _wheel_bytes(archive: Archive, name: str) -> int:
    try:
        with archive.open(name) as file, zipfile.ZipFile(file) as wheel:
            return unpacked_bytes(wheel)
    except zipfile.BadZipFile as error:
        raise UserError(f"{name}: not a sound wheel: {error}", "build the release again") from error


def _blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _used_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) if folder.exists() else 0
