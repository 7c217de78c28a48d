"""A release into an image of Raspberry Pi OS: checked first, put in, every file read back, and whole or not there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgemask.device import first_start
from edgemask.device.enrolment import Enrolment
from edgemask.device.first_start import Wishes
from edgemask.device.os_image import OsImage, check_fits, open_os_image
from edgemask.device.own_settings import check_own_settings
from edgemask.device.unpacking import Progress, is_packed, unpack
from edgemask.errors import UserError
from edgemask_runtime.files import replacing, sha256_of
from edgemask_runtime.release import Release

RUNTIME = "edgemask_runtime-"
MARGIN = 16 << 20
WATCH = f"if the board does not come up: {first_start.LOG} on the card's boot partition tells why"


@dataclass(frozen=True)
class Prepared:
    """An image that installs a release at its first start."""

    image: Path
    system: str
    release: str
    key: str

    def text(self) -> str:
        """For people."""
        return (
            f"{self.image}: {self.system}; its first start installs {self.release}, and believes key {self.key}\n"
            f"write it to a card with Raspberry Pi Imager; {WATCH}"
        )

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"image": str(self.image), "system": self.system, "release": self.release, "key": self.key}


def target_of(image: Path, out: Path | None, in_place: bool) -> Path:
    """Where the prepared image goes; UserError unless it is said, and where something else lies there already."""
    if in_place:
        if out is not None:
            raise UserError("--in-place and --out exclude each other", "say where the result goes: one of them")
        if is_packed(image):
            raise UserError(f"{image}: is packed, and cannot be changed in place", "name the result: --out sd.img")
        return image.resolve()
    if out is None:
        hint = f"name the result: --out {_suggested(image)}; or change the file itself: --in-place"
        raise UserError(f"{image}: the image that is given stays as it is", hint)
    if out.exists():
        raise UserError(f"{out}: is there already", "name another file, or delete it")
    return out


def prepare(
    release: Release, enrolment: Enrolment, image: Path, target: Path, wishes: Wishes, progress: Progress
) -> Prepared:
    """Write to `target` what is in `image`, with the release and its first start put in."""
    wishes.check()
    if wishes.settings is not None:
        check_own_settings(wishes.settings, release)
    with replacing(target) as file:
        working = Path(file.name)
        with _named_as(image, working):
            unpack(image, file, progress)
            file.flush()
            system = open_os_image(working)
            check_fits(system, release)
            _check_fresh(system)
            _put_in(system, release, enrolment, wishes, progress)
        if target.exists():
            _as_before(working, target.stat())
    return Prepared(target, system.title, release.manifest.title, enrolment.key.id)


def _as_before(path: Path, before: os.stat_result) -> None:
    """Give the file the owner, where we may, and the rights of the one whose place it takes."""
    with suppress(PermissionError):
        os.chown(path, before.st_uid, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode))


def _put_in(system: OsImage, release: Release, enrolment: Enrolment, wishes: Wishes, progress: Progress) -> None:
    wheel = _runtime_wheel(release, system.python)
    content = release.read(wheel)
    plan = _plan(release, enrolment)
    files = first_start.install_files(release.path, PurePosixPath(wheel).name, content, plan, enrolment.key.to_pem())
    files += first_start.wished_files(system, wishes)
    on_boot = first_start.boot_files(wishes)
    needed = release.path.stat().st_size + len(content)
    _check_room(system, needed, sum(map(len, on_boot.values())))
    progress("put in", 0, 1)
    system.root.write(files)
    for folder, owner in first_start.owned_folders(system, wishes).items():
        system.root.own(folder, stat.S_IRWXU, owner)
    for name, data in on_boot.items():
        system.boot.write(name, data)
    system.root.check()
    progress("put in", 1, 1)


def _check_fresh(system: OsImage) -> None:
    """A first start does nothing where a release is installed already."""
    if system.root.entry(first_start.STATE) is not None:
        text = f"{system.path}: Edgemask is installed in it already"
        raise UserError(text, "take a fresh image of Raspberry Pi OS, or flash the running board: --to ssh://user@host")


def _check_room(system: OsImage, on_root: int, on_boot: int) -> None:
    for what, fs, needed in (("system", system.root, on_root + MARGIN), ("boot", system.boot, on_boot + (1 << 16))):
        if (free := fs.free_bytes()) < needed:
            text = f"{system.path}: its {what} partition has {free >> 20} MB free, {needed >> 20} MB are needed"
            raise UserError(text, "take an image with less in it, or flash the running board: --to ssh://user@host")


def _runtime_wheel(release: Release, python: str) -> str:
    wheels = release.manifest.environments[python].wheels
    found = [name for name in wheels if PurePosixPath(name).name.startswith(RUNTIME)]
    if len(found) != 1:
        raise UserError(f"{release.path}: has no wheel of the runtime for Python {python}", "build the release again")
    return found[0]


def _plan(release: Release, enrolment: Enrolment) -> str:
    order = [first_start.RELEASE, "--sha256", sha256_of(release.path), "--enrol", first_start.KEY]
    return first_start.plan_json(int(time.time()), [*order, "--allow-dev-key"] if enrolment.key.development else order)


@contextmanager
def _named_as(image: Path, working: Path) -> Iterator[None]:
    """Errors about the copy that is worked on are about the image that was given."""
    try:
        yield
    except UserError as error:
        raise UserError(error.message.replace(str(working), str(image)), error.hint) from error


def _suggested(image: Path) -> Path:
    name = image.name
    for suffix in (".xz", ".gz", ".zip", ".img"):
        name = name.removesuffix(suffix)
    return image.with_name(f"{name}-edgemask.img")
