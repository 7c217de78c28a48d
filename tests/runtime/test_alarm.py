"""A kernel whose random source repeats itself: the C library's getrandom is replaced under the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from .running import run_daemon, running_daemon
from .tiny import SHAPE, MakeBundle, picture

REPEATING = """
#include <string.h>
#include <sys/types.h>
ssize_t getrandom(void *buffer, size_t length, unsigned flags) { memset(buffer, 7, length); return length; }
"""


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("getrandom")
    (folder / "repeating.c").write_text(REPEATING)
    library = folder / "repeating.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "repeating.c"], check=True, timeout=60)
    return library


def test_entropy_that_repeats_is_an_alarm(make_bundle: MakeBundle, faces: Path, repeating: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(repeating)}
    arguments = ("--source", faces, "--fps", 0, "--loop", "--listen", "none")
    done = run_daemon("run", make_bundle(noisy=True), *arguments, env=environment)
    assert done.returncode == 4, done.stderr
    assert "tiny: the operating system's random source repeats itself; the pipeline is stopped" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["invalid"] == "alarm: the operating system's random source repeats itself"
    assert len(lines) <= 2
    assert run_daemon("run", make_bundle(), *arguments, "--max-frames", 3, env=environment).returncode == 0


def test_an_alarm_that_a_client_meets_ends_health(make_bundle: MakeBundle, repeating: Path) -> None:
    tensor = {"name": "frame", "datatype": "UINT8", "shape": [1, *SHAPE], "data": picture(0).ravel().tolist()}
    environment = {**os.environ, "LD_PRELOAD": str(repeating)}
    with (
        running_daemon(make_bundle(noisy=True), env=environment) as daemon,
        httpx.Client(base_url=daemon.url) as client,
    ):
        assert client.get("/v2/health/live", timeout=60).status_code == 200
        asked = [client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}, timeout=60) for _ in range(3)]
        assert asked[-1].status_code == 500
        assert "repeats itself" in asked[-1].json()["error"]
        live = client.get("/v2/health/live", timeout=60)
        assert (live.status_code, live.json()["live"]) == (503, False)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) == 4
