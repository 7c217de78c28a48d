"""A board's processor without its machine: Debian's Python with a release's wheels in a chroot, under qemu-user.

The chroot has a board's own /proc/cpuinfo and none of this machine's /sys: engines that find another processor there
than the one they run on crash. Nothing else of the emulated system runs, least of all dpkg or pip.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemask.target import find_target
from edgemask.wheels import lock_for, runtime_wheel, wheels_for

from .debian import cached, tool, unpack

PACKAGES = ("base-files", "python3", "libstdc++6")
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
EXTRAS = ("onnxruntime", "litert", "images", "grpc", "v4l2", "mqtt", "can", "video", "install")
TIME_S = 1800
NO_MOUNTS = 77
ENTER = f"""
set -e
trap 'exit {NO_MOUNTS}' EXIT
mount --bind "$1" "$2/qemu"
mount --bind "$3" "$2/work"
mount --bind "$3/cpuinfo" "$2/proc/cpuinfo"
trap - EXIT
exec chroot "$2" /qemu /usr/bin/python3 "/work/$4"
"""
CORE = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""


@dataclass(frozen=True)
class Processor:
    """A core as QEMU and as the kernel call it, and a board that has it."""

    name: str
    part: str
    board: str

    def cpuinfo(self) -> str:
        """What the board's /proc/cpuinfo says of its four cores."""
        features = " ".join(find_target(self.board).features)
        return "".join(CORE.format(number=number, features=features, part=self.part) for number in range(4))


PROCESSORS = (
    Processor("cortex-a53", "0xd03", "raspberrypi-3"),
    Processor("cortex-a72", "0xd08", "raspberrypi-4"),
    Processor("cortex-a76", "0xd0b", "raspberrypi-5"),
)


def tree(python: str) -> Path:
    """Debian with this Python and, in /site, every wheel that a release may hold; made once for a lock."""
    digests = [pin.sha256 for pin in lock_for("aarch64", python, EXTRAS)]

    def make(folder: Path) -> None:
        made = folder / "tree"
        unpack(PACKAGES, "arm64", made, SUITES[python])
        for wheel in wheels_for(find_target("arm64"), python, EXTRAS):
            unzip(wheel, made / "site")
        for path in ("qemu", "proc/cpuinfo", "sys/devices/system/cpu/possible", "sys/devices/system/cpu/present"):
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text("0-3\n")
        (made / "work").mkdir()

    return cached(f"user-{python}", f"{PACKAGES}{digests}", make) / "tree"


def prepare(work: Path) -> None:
    """Put the runtime's own wheel where `run` finds it: it is another one after every change of it."""
    unzip(runtime_wheel(), work / "site")


def run(processor: Processor, python: str, work: Path, script: str) -> dict[str, Any]:
    """Run a script of the folder `work`, which it sees as /work, and return the JSON of its last line."""
    (work / "cpuinfo").write_text(processor.cpuinfo())
    enter = [tool("unshare"), "--mount", "sh", "-c", ENTER, "sh", tool("qemu-aarch64-static"), str(tree(python))]
    path = "/work/site:/site"
    environment = {"PATH": os.environ["PATH"], "HOME": "/work", "QEMU_CPU": processor.name, "PYTHONPATH": path}
    done = subprocess.run([*enter, str(work), script], env=environment, capture_output=True, text=True, timeout=TIME_S)
    if done.returncode == NO_MOUNTS or "unshare: " in done.stderr:
        pytest.skip(f"a chroot with mounts of its own is root's, and this machine refuses: {done.stderr.strip()}")
    assert done.returncode == 0, f"{processor.name}, Python {python}: {done.returncode}\n{done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def unzip(wheel: Path, folder: Path) -> None:
    """A wheel's files, as an installer on the board would put them."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
