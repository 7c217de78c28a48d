"""The power-cut matrix: an install and an update recorded block by block, the disk rebuilt at every flush and between
them, checked, and recovered: what is there is always a complete version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtime.boards import Maker, at_rest
from runtime.tiny import MakeBundle

from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.recovery import recover
from edgemask_runtime.install.services import ServiceState
from edgemask_runtime.install.switching import Device

from .blocklog import Epoch, Write, apply, epochs, torn
from .debian import tool
from .vm import run_on_another_kernel

pytestmark = pytest.mark.board
DISK_BYTES, LOG_BYTES = 48 << 20, 4 << 30
SOUND, MENDED = 0, 1
FEW, TEARS = 24, 4
FORMAT = "-q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0"
MODULES = ("virtio_blk", "ext4", "crc32c_generic")
SCRIPT = Path(__file__).with_name("cutting.py")


class Asleep:
    """systemd while it boots: it has not started the daemon yet."""

    def make_users(self, file: Path) -> None:
        raise AssertionError(file)

    def reload(self) -> None:
        pass

    def restart(self) -> None:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def state(self) -> ServiceState:
        return ServiceState("inactive", "dead")

    def said(self) -> str:
        return ""


@dataclass(frozen=True)
class Recording:
    """The disk as it was before, and all that was written to it since; it was mounted at `place`."""

    blank: Path
    place: Path
    epochs: list[Epoch]


@pytest.fixture(scope="module")
def recording(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("cuts")
    maker = Maker(folder, make_bundle())
    releases = [maker.release(serial, min_serial=serial) for serial in (1, 2)]
    blank, disk, log, place = (folder / name for name in ("blank.img", "disk.img", "log.img", "place"))
    place.mkdir()
    for path, size in ((blank, DISK_BYTES), (log, LOG_BYTES)):
        with path.open("wb") as file:
            file.truncate(size)
    subprocess.run([tool("mke2fs"), *FORMAT.split(), str(blank)], check=True)
    shutil.copy(blank, disk)
    command = [sys.executable, str(SCRIPT), str(place), *map(str, releases), str(maker.public)]
    told = run_on_another_kernel(" ".join(command), folder, extra_modules=MODULES, devices=_recorded(disk, log))
    assert "recorded" in told
    return Recording(blank, place, epochs(log))


def _recorded(disk: Path, log: Path) -> tuple[str, ...]:
    nodes = [
        f"driver=file,filename={disk},node-name=disk",
        f"driver=file,filename={log},node-name=log",
        "driver=blklogwrites,file=disk,log=log,node-name=recorded",
    ]
    drives = [word for node in nodes for word in ("-blockdev", node)]
    return (*drives, "-device", "virtio-blk-pci,drive=recorded")


def test_a_power_cut_leaves_a_complete_version(recording: Recording, tmp_path: Path) -> None:
    count = len(recording.epochs)
    busiest = sorted(range(count), key=lambda number: len(recording.epochs[number].writes))[-FEW // 2 :]
    _check_points(recording, tmp_path, {*range(0, count, max(1, count // FEW)), *busiest}, tears=1)


@pytest.mark.slow
def test_a_power_cut_at_every_flush_leaves_a_complete_version(recording: Recording, tmp_path: Path) -> None:
    _check_points(recording, tmp_path, set(range(len(recording.epochs))), tears=TEARS)


def _check_points(recording: Recording, folder: Path, chosen: set[int], *, tears: int) -> None:
    found: Counter[str] = Counter()
    disk = folder / "now.img"
    shutil.copy(recording.blank, disk)
    with disk.open("r+b") as file:
        for number, epoch in enumerate(recording.epochs):
            if number in chosen:
                for name, writes in _states(epoch, number, tears):
                    file.flush()
                    found[f"{name}: {_outcome(recording, disk, folder / 'cut.img', writes)}"] += 1
            apply(file, epoch.writes)
    print(f"\n{sum(found.values())} points of {len(recording.epochs)} flushes: {dict(sorted(found.items()))}")
    assert {outcome.partition(": ")[2] for outcome in found} == {"nothing yet", "version 1", "version 2"}


def _states(epoch: Epoch, number: int, tears: int) -> Iterator[tuple[str, list[Write]]]:
    yield "at a flush", []
    if len(epoch.writes) > 1:
        yield from (("torn", torn(epoch, number * tears + tear)) for tear in range(tears))


def _outcome(recording: Recording, disk: Path, cut: Path, writes: list[Write]) -> str:
    """Rebuild, check and recover: what is there."""
    subprocess.run(["cp", "--sparse=always", str(disk), str(cut)], check=True)
    with cut.open("r+b") as file:
        apply(file, writes)
    checked = subprocess.run([tool("e2fsck"), "-fy", str(cut)], capture_output=True, text=True, check=False)
    assert checked.returncode in (SOUND, MENDED), checked.stdout
    again = subprocess.run([tool("e2fsck"), "-fn", str(cut)], capture_output=True, text=True, check=False)
    assert again.returncode == SOUND, again.stdout
    shutil.rmtree(recording.place)
    recording.place.mkdir()
    subprocess.run([tool("debugfs"), "-R", f"rdump / {recording.place}", str(cut)], capture_output=True, check=True)
    return _recovered(recording.place)


def _recovered(place: Path) -> str:
    layout = Layout(place / "root", place / "system")
    promised = max((int(path.name[-1]) for path in place.glob("came-through-*")), default=0)
    if layout.root.exists():
        recover(Device(layout, Asleep()), boot=True)
    if not layout.state.exists():
        assert promised == 0
        assert not layout.current.is_symlink()
        return "nothing yet"
    serial = at_rest(layout)
    assert serial >= promised
    if serial == 0:
        return "nothing yet"
    assert ("the owner's" in layout.settings.read_text()) == (serial == 2)
    command = [str(layout.current / "venv/bin/edgemaskd"), "warm-up", str(layout.settings)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f'"digest": "{serial}"' in ran.stdout
    return f"version {serial}"
