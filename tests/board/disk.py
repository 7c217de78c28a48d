"""Runs where /dev/vda is a disk that may go: `edgemask flash` onto it. Prints one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgemask.device.block_devices import find_disk
from edgemask.device.card import Card, flash_card
from edgemask.device.disk import Consent, choose
from edgemask.device.enrolment import enrolment_for
from edgemask.errors import UserError
from edgemask_runtime.release import Release

DISK, PLACE, SERIAL = Path("/dev/vda"), Path("/run/place"), "EM0001"


def never(question: str) -> str:
    raise AssertionError(question)


def quiet(step: str, done: int, of: int) -> None:
    """Nobody watches."""


def refused(path: Path, consent: Consent | None = None) -> str:
    """Why a disk is not taken."""
    try:
        choose(path, 1, consent or Consent(never, SERIAL))
    except UserError as error:
        return error.message
    return "taken"


def flashed(folder: Path) -> dict[str, Any]:
    release = Release.open(folder / "tiny.release")
    card = Card(DISK, Consent(never, SERIAL), folder / "raspios.img.gz")
    return flash_card(release, enrolment_for(release), card, quiet).to_json()


def mounted() -> str:
    PLACE.mkdir()
    subprocess.run(["mount", "-t", "ext4", "/dev/vda2", str(PLACE)], check=True)
    try:
        return refused(DISK)
    finally:
        subprocess.run(["umount", str(PLACE)], check=True)


def swapping() -> str:
    """As swap space that is in use."""
    subprocess.run(["mkswap", "/dev/vda1"], check=True, capture_output=True)
    subprocess.run(["swapon", "/dev/vda1"], check=True)
    try:
        return refused(DISK)
    finally:
        subprocess.run(["swapoff", "/dev/vda1"], check=True)


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    disk = find_disk(DISK, 1)
    found = {
        "disk": [disk.path, disk.size, disk.serial],
        "other": refused(DISK, Consent(never, "EM0002")),
        "flashed": flashed(folder),
        "parts": sorted(path.name for path in Path("/sys/block/vda").glob("vda*")),
        "partition": refused(Path("/dev/vda2")),
        "mounted": mounted(),
        "swapping": swapping(),
    }
    print(f"\nfound={json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
