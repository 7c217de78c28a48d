"""The example as its page shows it: faces from the wheel, the recipe's bundle, answers that are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgemask

EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces") / "test"
    subprocess.run([sys.executable, EXAMPLE / "faces.py", "--split", "test", "-o", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    built = edgemask.build(EXAMPLE / "edgemask.toml", "host", tmp_path_factory.mktemp("built"), images=faces)
    assert built.parity.images == 20
    return built.bundle


def test_the_daemon_knows_the_drivers_through_the_mask(bundle: Path, faces: Path) -> None:
    daemon = [sys.executable, "-m", "edgemask_runtime.daemon", "run", bundle]
    told = subprocess.run(
        [*daemon, "--source", faces, "--fps", "0", "--listen", "none"], check=True, capture_output=True, text=True
    )
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    right = sum(answer["top"][0]["label"] == answer["name"][:3] for answer in answers)
    assert len(answers) == 120
    assert right >= 114


def test_a_cache_that_cannot_be_used_is_one_error(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the cache should be")
    done = subprocess.run(
        [sys.executable, EXAMPLE / "faces.py", "--cache", cache, "-o", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
