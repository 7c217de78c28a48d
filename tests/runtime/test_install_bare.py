"""The first install: from the runtime's wheel alone, on Pythons that have nothing but their standard library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import edgemask_runtime
from edgemask_runtime.release import Environment

from .boards import WHEEL, Board

PACKAGE = Path(edgemask_runtime.__file__).parent
TESTS = Path(__file__).parents[1]
NEEDED = "import sys, venv, ssl; sys.exit(sys.version_info < (3, 10))"
INSTALL = """
import sys
from pathlib import Path
from runtime.manager import Far
from edgemask_runtime.install import cli
from edgemask_runtime.install.layout import Layout
assert cli.__file__.split(".whl")[0] == sys.path[1].split(".whl")[0], cli.__file__
layout = Layout(Path(sys.argv[1], "root"), Path(sys.argv[1], "system"))
sys.exit(cli.main(sys.argv[2:], layout=layout, services=lambda: Far(sys.argv[1] + "/manager"), steady_s=0.0))
"""


def bare_pythons() -> list[Path]:
    """The interpreters of this machine, without what any environment adds to them."""
    names = [f"python3.{minor}" for minor in range(10, 15)]
    found = [Path(path) for name in names if (path := shutil.which(name))]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [*versions.glob("3.1[0-9].*/bin/python3"), Path(sys._base_executable)]
    return [path for path in found if _runs(path)]


def _runs(python: Path) -> bool:
    done = subprocess.run([str(python), "-I", "-c", NEEDED], capture_output=True, check=False)
    return done.returncode == 0


def _by_version() -> dict[str, Path]:
    told = "import sys; print('%d.%d' % sys.version_info[:2])"
    return {
        subprocess.run([str(path), "-I", "-c", told], capture_output=True, text=True, check=True).stdout.strip(): path
        for path in bare_pythons()
    }


PYTHONS = _by_version()


@pytest.fixture(scope="session")
def runtime_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's modules in a wheel, as the release has them."""
    path = tmp_path_factory.mktemp("wheel") / "edgemask_runtime-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(PACKAGE.rglob("*.py")):
            archive.write(file, file.relative_to(PACKAGE.parent))
    return path


def run_bare(python: Path, wheel: Path, board: Board, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """edgemask-device from the wheel, with nothing else but what the test's service manager is spoken to with."""
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{wheel}{os.pathsep}{TESTS}", "PYTHONDONTWRITEBYTECODE": "1"}
    # Without `site` no package of this machine is found, should there be any.
    command = [str(python), "-S", "-W", "error", "-c", INSTALL, str(board.folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env, cwd="/")


@pytest.mark.parametrize("version", PYTHONS)
def test_a_bare_python_installs_from_the_wheel(board: Board, runtime_wheel: Path, version: str) -> None:
    python, maker = PYTHONS[version], board.maker
    release = maker.release(1, environments={version: Environment((WHEEL,), ())})
    sha256 = maker.sha256(release)
    order = ("install", release, "--enrol", maker.public)
    unverified = run_bare(python, runtime_wheel, board, *order)
    assert unverified.returncode == 2
    assert "`cryptography`, which is missing" in unverified.stderr
    wrong = run_bare(python, runtime_wheel, board, *order, "--sha256", "0" * 64)
    assert "SHA-256" in wrong.stderr
    unknown = run_bare(python, runtime_wheel, board, "install", release, "--sha256", sha256)
    assert "is not enrolled here" in unknown.stderr
    done = run_bare(python, runtime_wheel, board, *order, "--sha256", sha256, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["installed"]["serial"] == 1
    assert board.manager.becomes("active").status == "version 1"
    assert (board.layout.current / f"venv/lib/python{version}/site-packages/tinyd.py").exists()
    assert list(board.layout.current.glob("venv/lib/*/site-packages/__pycache__/tinyd.*.pyc"))
    status = json.loads(run_bare(python, runtime_wheel, board, "status", "--json").stdout)
    assert status["keys"]["enrolled"][0]["public"] == base64.b64encode(maker.key.raw).decode()
    # What is installed judges the next release, and is not passed over; only one that does not run any more is.
    again = run_bare(python, runtime_wheel, board, *order, "--sha256", sha256)
    assert "`cryptography`, which is missing" in again.stderr
    (board.layout.current / "venv/bin/edgemask-device").unlink()
    vouched = run_bare(python, runtime_wheel, board, *order, "--sha256", sha256)
    assert vouched.returncode == 0, vouched.stderr


def test_the_wheel_needs_no_package(runtime_wheel: Path) -> None:
    listed = "import sys, edgemask_runtime.install.cli as c; print(sorted({n.partition('.')[0] for n in sys.modules}))"
    env = {"PYTHONPATH": str(runtime_wheel), "PATH": "/usr/bin:/bin"}
    told = subprocess.run(
        [sys._base_executable, "-S", "-c", listed], capture_output=True, text=True, check=True, env=env, cwd="/"
    )
    loaded = set(json.loads(told.stdout.replace("'", '"')))
    assert loaded - sys.stdlib_module_names == {"__main__", "edgemask_runtime"}
