"""The systemd units: how exposed they are, that they are well-formed, and that the daemon lives under them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .running import COMMAND
from .sandboxed import CANNOT
from .tiny import MakeBundle

UNITS = Path(__file__).parents[2] / "targets" / "units"
CPU, CUDA = UNITS / "edgemaskd-cpu.service", UNITS / "edgemaskd-cuda.service"
RECOVER = UNITS / "edgemask-recover.service"
DAEMONS = (CPU, CUDA)
MOST_EXPOSED = {CPU: 2.5, CUDA: 2.5, RECOVER: 2.5}
PROGRAMS = "/opt/edgemask/current/venv/bin"
HERE = Path(__file__).parent

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("unit", MOST_EXPOSED, ids=lambda unit: unit.stem)
def test_a_unit_is_exposed_little(unit: Path) -> None:
    shown = analyze("security", "--offline=true", "--no-pager", unit)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown.stdout)
    assert level, shown.stderr
    assert float(level[1]) <= MOST_EXPOSED[unit], shown.stdout


@needs_systemd
@pytest.mark.parametrize("unit", MOST_EXPOSED, ids=lambda unit: unit.stem)
def test_a_unit_is_well_formed(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    text = re.sub(rf"{PROGRAMS}/[a-z-]+", sys.executable, text)
    (tmp_path / unit.name).write_text(text)
    checked = analyze("verify", tmp_path / unit.name)
    complaints = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert complaints == []
    (tmp_path / unit.name).write_text(text.replace("KeyringMode=private", "KeyringMode=mixd"))
    assert "mixd" in analyze("verify", tmp_path / unit.name).stderr


def assignments(unit: Path) -> set[str]:
    return {line for line in unit.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)}


def test_cuda_differs_in_what_it_needs_alone() -> None:
    keys = {line.partition("=")[0] for line in assignments(CPU) ^ assignments(CUDA)}
    allowed = "Description TimeoutStartSec SupplementaryGroups DevicePolicy DeviceAllow MemoryDenyWriteExecute"
    assert keys == {*allowed.split(), "SystemCallFilter"}


def test_units_say_what_the_daemon_does() -> None:
    for unit in DAEMONS:
        assert {"Type=notify", "WatchdogSec=30", "OOMPolicy=continue", "KillMode=mixed"} <= assignments(unit)
        assert "RestartPreventExitStatus=4" in assignments(unit)


@needs_systemd
@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
@pytest.mark.parametrize("unit", DAEMONS, ids=lambda unit: unit.stem)
def test_the_daemon_lives_in_the_sandbox(make_bundle: MakeBundle, faces: Path, unit: Path, engine: str) -> None:
    command = [sys.executable, str(HERE / "sandboxed.py"), str(unit), *COMMAND, "run"]
    command += [str(make_bundle(engine, noisy=True)), "--source", str(faces), "--fps", "0", "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == CANNOT:
        pytest.skip("this kernel has no PR_SET_MDWE, or seccomp cannot be used here")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(range(6))


@needs_systemd
def test_the_sandbox_refuses_what_it_should() -> None:
    tried = "import ctypes, mmap, os, time\n"
    tried += "for call in (lambda: time.clock_settime(0, 1), lambda: os.chroot('/'),\n"
    tried += "             lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)):\n"
    tried += "    try: call()\n    except OSError as error: print(error.errno)\n"
    command = [sys.executable, str(HERE / "sandboxed.py"), str(CPU), sys.executable, "-c", tried]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == CANNOT:
        pytest.skip("this kernel has no PR_SET_MDWE, or seccomp cannot be used here")
    assert len(done.stdout.split()) == 3, done.stdout + done.stderr
