"""`edgemask flash RELEASE --to sd.img`, or `--to /dev/sdX --image sd.img`: a card whose first start installs it."""

from __future__ import annotations

import stat
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemask.device.block_devices import Disk, find_disk
from edgemask.device.disk import Consent, choose, write_disk
from edgemask.device.enrolment import Enrolment
from edgemask.device.first_start import Wishes
from edgemask.device.image import WATCH, Prepared, prepare, target_of
from edgemask.device.unpacking import Progress
from edgemask.errors import UserError
from edgemask_runtime.moments import seconds
from edgemask_runtime.release import Release

SUFFIXES = (".img", ".xz", ".gz", ".zip")
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Card:
    """Where the release goes and what else was said of it.

    `image` is the operating system for a disk; for an image file `out` is where the result goes, unless `in_place`.
    """

    to: Path
    consent: Consent
    image: Path | None = None
    out: Path | None = None
    in_place: bool = False
    wishes: Wishes = field(default_factory=Wishes)


@dataclass(frozen=True)
class Written:
    """A card that was written and read back."""

    disk: Disk
    prepared: Prepared

    def text(self) -> str:
        """For people."""
        return (
            f"{self.disk.path}: {self.prepared.system}, which installs {self.prepared.release} at its first start; "
            f"written and read back: it is safe to remove\n{WATCH}"
        )

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {**self.prepared.to_json(), "image": None, "disk": self.disk.path, "serial": self.disk.serial}


def is_card(to: str) -> bool:
    """Whether the words behind --to name an image file or a disk, and no host."""
    path = Path(to)
    return "://" not in to and (path.suffix in SUFFIXES or path.is_absolute() or "/" in to)


def flash_card(release: Release, enrolment: Enrolment, card: Card, progress: Progress) -> Prepared | Written:
    """Prepare the image file, or write it to the disk, prepared; UserError before anything of it is lost."""
    card.wishes.check()
    _check_expiry(release)
    if is_disk(card.to):
        return _write(release, enrolment, card, progress)
    if card.image is not None:
        raise UserError(f"{card.to}: --image is for disks", f"name the image alone: --to {card.image} --out sd.img")
    target = target_of(card.to, card.out, card.in_place)
    return prepare(release, enrolment, card.to, target, card.wishes, progress)


def is_disk(path: Path) -> bool:
    """Whether a path is a block device, or would be one if it were there."""
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return path.is_relative_to(DEVICES)


def _check_expiry(release: Release) -> None:
    """UserError for a release that the board would refuse at its first start, where nobody looks on."""
    expires = release.manifest.expires
    if expires is not None and seconds(expires) <= time.time():
        hint = "build it again with a later --expires, or set this machine's clock if that is wrong"
        raise UserError(f"{release.path}: expired at {expires}: no board would install it", hint)


def _write(release: Release, enrolment: Enrolment, card: Card, progress: Progress) -> Written:
    if card.image is None or card.out is not None or card.in_place:
        hint = "a disk takes --image raspios.img.xz, an image of Raspberry Pi OS, and neither --out nor --in-place"
        raise UserError(f"{card.to}: say which operating system goes onto the disk", hint)
    if not card.image.is_file():
        raise UserError(f"{card.image}: no such image", "download one of Raspberry Pi OS (64-bit)")
    disk = choose(card.to, card.image.stat().st_size, card.consent)
    with tempfile.TemporaryDirectory(prefix=".edgemask-", dir=_workplace(card.image)) as folder:
        prepared = prepare(release, enrolment, card.image, Path(folder) / "sd.img", card.wishes, progress)
        again = find_disk(card.to, prepared.image.stat().st_size, any_size=card.consent.any_size)
        if again != disk:
            raise UserError(f"{card.to}: is another disk than before", "nothing was written; try again")
        write_disk(prepared.image, disk, progress)
    return Written(disk, prepared)


def _workplace(image: Path) -> Path | None:
    """Beside the image, where there was room for one already; /tmp may be memory."""
    folder = image.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None
