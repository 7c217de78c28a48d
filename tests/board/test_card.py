"""A card laid out as Raspberry Pi OS, prepared by `edgemask flash`: the emulated board starts from it, and serves."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemask.signing import load, sign
from edgemask_runtime.archive import file_records
from edgemask_runtime.release import Release, write_release
from edgemask_runtime.trust import Signatures

from .machine import Board
from .pi_card import card, insert

pytestmark = [pytest.mark.board, pytest.mark.slow]
RECIPE = Path(__file__).parents[2] / "examples/driver-id/edgemask.toml"
SETTINGS = """schema = 1
[http]
listen = "127.0.0.1:8700"
[[models]]
name = "driver-id"
bundle = "models/driver-id.edgemask"
deadline_s = 300
"""
LOG, PLACE, UNIT = "/boot/firmware/edgemask-first-boot.txt", "/var/lib/edgemask-first-boot", "edgemask-first-boot"
PYTHON, SERIAL = "3.13", 3
FIRST_START_S = 3600.0
# A Raspberry Pi without a battery knows no better.
LONG_AGO = ("-rtc", "base=2020-01-01T00:00:00")


def edgemask(folder: Path, *arguments: str) -> str:
    """What the command line prints, with keys in a folder of the tests'."""
    done = subprocess.run(
        [sys.executable, "-m", "edgemask", *arguments],
        env={**os.environ, "XDG_CONFIG_HOME": str(folder / "config")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def for_one_python(built: Path, key: Path, out: Path) -> Path:
    """The release with the wheels of the board's Python alone: an emulated board reads slowly."""
    release = Release.open(built)
    environment = release.manifest.environments[PYTHON]
    names = {name for name in release.manifest.files if not name.startswith("wheels/")} | {*environment.wheels}
    files = {name: release.read(name) for name in names}
    changes: dict[str, Any] = {"environments": {PYTHON: environment}, "files": file_records(files)}
    manifest = dataclasses.replace(release.manifest, **changes)
    write_release(out, manifest, files, Signatures.from_bytes(sign(manifest.to_json().encode(), load(key))))
    return out


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card's image with the release in it, as the command line makes it."""
    folder = tmp_path_factory.mktemp("maker")
    (folder / "own.toml").write_text(SETTINGS)
    edgemask(folder, "keygen")
    asked = ["--target", "arm64", "--serial", str(SERIAL), "--key", "release", "--settings", str(folder / "own.toml")]
    edgemask(folder, "build", str(RECIPE), *asked, "-o", str(folder))
    key = folder / "config/edgemask/keys/release.pem"
    release = for_one_python(folder / "driver-id-arm64.release", key, folder / "board.release")
    out = folder / "sd.img"
    told = edgemask(folder, "flash", str(release), "--to", str(card()), "--out", str(out), "--hostname", "camera-1")
    assert "its first start installs driver-id" in told
    return out


@pytest.fixture
def board(prepared: Path, tmp_path: Path) -> Iterator[Board]:
    """A board with the card in it, switched off, whose clock starts long ago."""
    board = insert(prepared, tmp_path, *LONG_AGO)
    yield board
    board.cut_power()


def waited(board: Board, condition: str) -> None:
    """Wait until a condition of the board's shell holds."""
    begun = time.monotonic()
    while board.run("sh", "-c", condition, check=False).returncode != 0:
        assert time.monotonic() - begun < FIRST_START_S, told(board)
        time.sleep(2)


def told(board: Board) -> str:
    """What the first start told, on the card and in the journal."""
    return board.shell(f"cat {LOG}", check=False) + board.journal(UNIT)


def serving(board: Board) -> dict[str, Any]:
    """Wait until the daemon serves; the status then."""
    waited(board, 'edgemask-device status --json | grep -q \'"health": "ready"\'')
    return dict(json.loads(board.ask("edgemask-device", "status", "--json")))


def cut_and_boot(board: Board) -> None:
    board.cut_power()
    print(f"the power is cut; up again after {board.boot():.0f} s", flush=True)


def test_the_first_start_installs_and_serves_through_power_cuts(board: Board) -> None:
    print(f"the card is up after {board.boot():.0f} s", flush=True)
    assert board.ask("hostname").strip() == "camera-1"
    waited(board, f"grep -q warm-up {LOG}")
    cut_and_boot(board)
    waited(board, f"[ ! -e {PLACE} ]")
    status = serving(board)
    print(told(board), flush=True)
    assert status["installed"]["serial"] == SERIAL
    assert "done: a release is installed" in board.ask("cat", LOG)
    assert int(board.ask("date", "+%Y")) >= 2026
    assert [key["enrolled_by"] for key in json.loads(board.ask("edgemask-device", "keys", "--json"))["enrolled"]] == [
        "--enrol"
    ]
    cut_and_boot(board)
    assert serving(board)["installed"]["serial"] == SERIAL
    assert board.run("systemctl", "cat", UNIT, check=False).returncode != 0


def test_a_first_start_that_fails_tells_why_on_the_card_and_is_tried_again(board: Board) -> None:
    board.boot()
    # Whatever it has come to: what numpy needs is gone, so that no warm-up can succeed.
    library = "/usr/lib/aarch64-linux-gnu/libstdc++.so.6"
    board.shell(f"systemctl kill -s KILL {UNIT}; mv {library} {library}.away; systemctl start {UNIT}")
    waited(board, f"grep -q 'tried again at the next start' {LOG}")
    assert "libstdc++" in board.ask("cat", LOG)
    assert board.run("test", "-e", f"{PLACE}/plan.json", check=False).returncode == 0
    board.shell(f"mv {library}.away {library}; sync")
    cut_and_boot(board)
    waited(board, f"[ ! -e {PLACE} ]")
    assert serving(board)["installed"]["serial"] == SERIAL
