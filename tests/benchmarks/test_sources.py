"""The benchmark of sources runs on what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_way_is_timed() -> None:
    command = [sys.executable, "-m", "benchmarks.sources", "--seconds", "0.2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert {"buffer YUYV -> yuyv: a view", "H.264 -> nv12", "Motion JPEG -> rgb, 1 of 3 read"} <= found["us"].keys()
    assert all(us > 0 for us in found["us"].values())
    assert {"HTTP Motion JPEG -> rgb", "shared memory NV12 -> nv12"} <= found["streams"].keys()
    assert all(row["age_p50_ms"] > 0 for row in found["streams"].values())
