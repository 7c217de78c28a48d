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

from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.ring.client import LocalModel

from .answering import eventually
from .running import COMMAND, run_daemon, running_daemon, watched
from .tiny import SHAPE, MakeBundle, picture

REPEATING = """
#include <string.h>
#include <sys/types.h>
ssize_t getrandom(void *buffer, size_t length, unsigned flags) { memset(buffer, 7, length); return length; }
"""

SETTINGS = """
schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "tiny"
bundle = "{bundle}"
socket = "{socket}"
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


def test_an_alarm_that_a_local_program_meets_ends_health(
    make_bundle: MakeBundle, repeating: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "edgemaskd.toml"
    settings.write_text(SETTINGS.format(bundle=make_bundle(noisy=True), socket=tmp_path / "tiny.sock"))
    environment = {**os.environ, "LD_PRELOAD": str(repeating)}
    with (
        watched([*COMMAND, "run", str(settings)], env=environment) as daemon,
        httpx.Client(base_url=daemon.url, timeout=60) as client,
    ):
        assert client.get("/v2/health/live").status_code == 200
        with LocalModel.connect(tmp_path / "tiny.sock", timeout_s=60) as model:
            model.infer(picture(0))
            with pytest.raises(NoEntropy):
                model.infer(picture(0))
        eventually(lambda: client.get("/v2/health/live").status_code == 503)
        assert "repeats itself" in client.get("/status").json()["alarm"]


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
