"""Releases with the wheels that a board really gets: the same on two machines, whole, and small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgemask.target import find_target
from edgemask.wheels.fetching import platform_options
from edgemask_runtime.release import Release

EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id" / "edgemask.toml"
LIMIT_BYTES = 5_000_000
BEFORE_3_11 = {"exceptiongroup", "tomli"}
BOARDS = ("raspberrypi", "jetson")

pytestmark = pytest.mark.wheels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def edgemask(folder: Path, cache: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the program as another user would, in a home and a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "XDG_CACHE_HOME": str(cache), **changes}
    environment.pop("SOURCE_DATE_EPOCH", None)
    command = [sys.executable, "-m", "edgemask", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def built(folder: Path, cache: Path, target: str, *words: str, **changes: str) -> dict[str, Any]:
    done = edgemask(folder, cache, "build", str(EXAMPLE), "--target", target, "--json", *words, **changes)
    assert done.returncode == 0, done.stderr
    release: dict[str, Any] = json.loads(done.stdout)["release"]
    return release


@pytest.mark.parametrize("target", BOARDS)
def test_two_machines_agree_and_the_second_needs_no_network(target: str, cache: Path, tmp_path: Path) -> None:
    first = built(tmp_path / "one", cache, target)
    other = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "5", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    second = built(tmp_path / "far" / "away" / "two", cache, target, "--offline", **other)
    assert first["payload_digest"] == second["payload_digest"]
    assert first["signed_by"]["id"] != second["signed_by"]["id"]
    sizes = first["sizes"]
    assert sizes["without_wheels"] - sizes["models"]["driver-id"] <= LIMIT_BYTES


@pytest.mark.parametrize("target", BOARDS)
def test_pip_finds_nothing_missing_for_the_board(target: str, cache: Path, tmp_path: Path) -> None:
    """The independent judge of whether wheels fit the board's Python and bring all that each of them needs."""
    release = Release.open(tmp_path / built(tmp_path, cache, target)["file"])
    board = find_target(target)
    for python, environment in release.manifest.environments.items():
        folder = tmp_path / python
        folder.mkdir()
        for wheel in environment.wheels:
            (folder / Path(wheel).name).write_bytes(release.read(wheel))
        extras = ",".join(sorted(board.extras("onnx", {"images"})))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", f"--find-links={folder}"]
        command += [*platform_options(board.arch, python), "--only-binary=:all:", f"--target={tmp_path / 'there'}"]
        command += ["--report=-", "--quiet", f"edgemask-runtime[{extras}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        chosen = {Path(item["download_info"]["url"]).name for item in json.loads(done.stdout)["install"]}
        given = {Path(wheel).name for wheel in environment.wheels}
        assert chosen <= given
        # pip judges markers (python_version < "3.11") by the Python that runs it, not by the board's.
        assert {name.partition("-")[0] for name in given - chosen} <= (BEFORE_3_11 if python == "3.10" else set())


def test_without_a_cache_offline_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    words = ("build", str(EXAMPLE), "--target", "raspberrypi", "--offline")
    done = edgemask(tmp_path, tmp_path / "nothing", *words)
    assert done.returncode == 2
    assert "numpy" in done.stderr
    assert "--offline" in done.stderr
    assert not (tmp_path / "build" / "raspberrypi" / "driver-id-raspberrypi.release").exists()
