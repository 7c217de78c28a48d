"""A real release of the example: installed by a bare Python from the wheel in it, then updated by what it installed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.manager import managed

from edgemask_runtime.install.layout import Layout

ROOT = Path(__file__).parents[2]
SETTINGS = """schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "driver-id"
bundle = "models/driver-id.edgemask"
"""
INSTALLER = """
import sys
from pathlib import Path
from runtime.manager import Far
from edgemask_runtime.install import cli
from edgemask_runtime.install.layout import Layout
layout = Layout(Path(sys.argv[1], "root"), Path(sys.argv[1], "system"))
sys.exit(cli.main(sys.argv[2:], layout=layout, services=lambda: Far(sys.argv[1] + "/manager"), steady_s=1.0))
"""

pytestmark = pytest.mark.wheels


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Builds the example's release for this machine, signed with a development key of the test's own."""
    folder = tmp_path_factory.mktemp("releases")
    (folder / "settings.toml").write_text(SETTINGS)

    def built(serial: int) -> Path:
        command = [Path(sys.executable).with_name("edgemask"), "build", ROOT / "examples/driver-id/edgemask.toml"]
        command += ["--target", "host", "--release", "--serial", serial, "--settings", folder / "settings.toml"]
        env = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
        out = folder / str(serial)
        done = subprocess.run([*map(str, command), "-o", out], env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return next(out.glob("*.release"))

    return built


def installer(python: Path | str, folder: Path, *arguments: Any, **env: str) -> subprocess.CompletedProcess[str]:
    """edgemask-device by this Python, on a device in a folder."""
    command = [str(python), *(["-S"] if env else []), "-c", INSTALLER, str(folder), *map(str, arguments)]
    outside = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "tests")} | env
    return subprocess.run(command, env=outside, cwd="/", capture_output=True, text=True, timeout=600, check=False)


def test_a_real_release_is_installed_and_updated(build: Callable[[int], Path], tmp_path: Path) -> None:
    first, layout = build(1), Layout(tmp_path / "root", tmp_path / "system")
    public = first.parents[1] / "edgemask/keys/development.pub"
    with zipfile.ZipFile(first) as archive:
        name = next(name for name in archive.namelist() if "edgemask_runtime" in name)
        wheel = Path(archive.extract(name, tmp_path))
    order = ["install", first, "--enrol", public, "--sha256", hashlib.sha256(first.read_bytes()).hexdigest()]
    with managed(layout, tmp_path) as manager:
        bare = {"PYTHONPATH": f"{wheel}:{ROOT / 'tests'}"}
        refused = installer(sys._base_executable, tmp_path, *order, **bare)
        assert "a development key" in refused.stderr
        done = installer(sys._base_executable, tmp_path, *order, "--allow-dev-key", "--json", **bare)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        installed = json.loads(done.stdout.splitlines()[-1])["installed"]
        assert installed["engine"]["driver-id"].startswith("onnxruntime ")
        manager.becomes("active")
        assert _served(manager.said()) == ["driver-id"]
        program = [str(layout.current / "venv/bin/edgemask-device"), "--version"]
        assert "edgemask-device 0.1" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
        listed = subprocess.run(
            [str(layout.current / "venv/bin/python"), "-I", "-c", LISTED], capture_output=True, text=True, check=True
        )
        assert json.loads(listed.stdout) == [str(layout.current / "venv")]
        python, second = layout.current / "venv/bin/python", build(2)
        _other_signature(second, tmp_path / "other.release")
        assert "was altered" in installer(python, tmp_path, "install", tmp_path / "other.release").stderr
        done = installer(python, tmp_path, "install", second)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        assert layout.running() == "b"
        assert _served(manager.said()) == ["driver-id"]
        assert installer(layout.current / "venv/bin/python", tmp_path, "rollback").returncode == 0
        assert layout.running() == "a"


LISTED = """
import json, sys
import edgemask_runtime, numpy, onnxruntime, cryptography
places = {str(module.__file__).partition("/lib/")[0] for module in (edgemask_runtime, numpy, onnxruntime, cryptography)}
print(json.dumps(sorted(places)))
"""


def _served(said: str) -> list[str]:
    """The models that the daemon answers for, by its own door."""
    match = re.search(r"listening on (http://\S+)", said)
    assert match, said
    with urllib.request.urlopen(f"{match[1]}/v2/health/ready", timeout=60) as answer:
        assert answer.status == 200
    request = urllib.request.Request(f"{match[1]}/v2/repository/index", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [model["name"] for model in json.loads(answer.read()) if model["state"] == "READY"]


def _other_signature(release: Path, to: Path) -> None:
    """The release with the first letter of its signature changed; all else holds together."""
    content = release.read_bytes()
    at = content.index(b'"signature": "') + len(b'"signature": "')
    other = b"A" if content[at : at + 1] != b"A" else b"B"
    text = content[:at] + other + content[at + 1 :]
    with zipfile.ZipFile(release) as archive:
        info = archive.getinfo("signature.json")
        old = archive.read(info)
    start = content.index(old)
    new = text[start : start + len(old)]
    to.write_bytes(text.replace(info.CRC.to_bytes(4, "little"), zipfile.crc32(new).to_bytes(4, "little")))
