"""Both distributions as a user gets them: wheels, installed without an index, used outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "driver-id"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
MEGABYTE = 1_000_000
ALL_STEPS = """
schema = 1
name = "all"
model = {file = "keras_float.tflite"}
frame = {width = 45, height = 37, colour = "bgr"}
steps = [
  {kind = "rgb"},
  {kind = "resize", width = 33, height = 35},
  {kind = "resize", width = 32, height = 32, interpolation = "nearest"},
  {kind = "feature-squeeze", squeezer = "median"},
  {kind = "noise"},
  {kind = "jpeg", subsampling = "4:2:0"},
  {kind = "jpeg", quality = 50},
  {kind = "median"},
  {kind = "bit-depth"},
  {kind = "normalise"},
]
outputs = [{kind = "top-k", k = 3}]
"""
RUN_ONCE = """
import json, sys
import numpy as np
from edgemask_runtime.engines import open_engine
engine = open_engine(sys.argv[1], open(sys.argv[2], "rb").read())
source = np.random.RandomState(7)
feeds = {info.name: source.randint(0, 256, info.shape).astype(np.uint8) for info in engine.inputs}
print(json.dumps({name: value.ravel().tolist() for name, value in engine.run(feeds).items()}))
"""
FORBIDDEN = ("edgemask", "onnx", "tensorflow", "torch", "PIL")

pytestmark = pytest.mark.wheels


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout and return what it prints."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=outside, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder: Path, *install: str) -> Path:
    """A fresh virtual environment with these packages; its bin folder."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    run(folder / "bin" / "python", *PIP, "install", *install, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of both distributions and of all that they need."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = folder / "sources"
    for name in ("pyproject.toml", "README.md", "LICENSE", "toolchain", "runtime", "targets"):
        source = ROOT / name
        copy = sources / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    runtime = f"{sources / 'runtime'}[onnxruntime,litert,images,install]"
    pins = ("--constraint", ROOT / ".constraints.txt")
    run(sys.executable, *PIP, "wheel", "--wheel-dir", folder, *pins, runtime, sources, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def offline(wheels: Path) -> tuple[str, ...]:
    """pip's options for an install from these wheels alone."""
    return ("--no-index", "--find-links", str(wheels))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, offline: tuple[str, ...]) -> Path:
    return environment(tmp_path_factory.mktemp("host") / "venv", *offline, "edgemask")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, host: Path) -> Path:
    """The example built by the installed wheels, as ONNX and as TFLite."""
    folder = tmp_path_factory.mktemp("bundles")
    shutil.copytree(EXAMPLE, folder / "driver-id")
    recipe = folder / "driver-id" / "edgemask.toml"
    lite = recipe.with_name("tflite.toml")
    lite.write_text(recipe.read_text().replace("driver-id.onnx", "driver-id.tflite"))
    for name, path in (("onnx", recipe), ("tflite", lite)):
        run(host / "edgemask", "build", path, "--target", "host", "-o", folder / name, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames that need no Pillow to be read."""
    folder = tmp_path_factory.mktemp("frames")
    source = np.random.default_rng(0)
    for i in range(3):
        pixels = source.integers(0, 256, (112, 92), np.uint8)
        (folder / f"{i}.pgm").write_bytes(b"P5 92 112 255\n" + pixels.tobytes())
    return folder


def answers(daemon: Path, bundle: Path, frames: Path, *options: str) -> list[dict[str, Any]]:
    """What a daemon says of the frames, its own timings left out."""
    told = run(daemon, "run", bundle, "--source", frames, "--listen", "none", "--fps", "0", *options, cwd=frames)
    lines = [json.loads(line) for line in told.splitlines()]
    return [{key: line[key] for key in ("name", "top", "outputs")} for line in lines]


def test_the_toolchain_wheel_brings_its_targets_and_builds(host: Path, bundles: Path) -> None:
    found = json.loads(run(host / "edgemask", "targets", "--json", cwd=bundles))
    folders = {file.parent.name for file in (ROOT / "targets").glob("*/target.toml")}
    assert {target["name"] for target in found} == folders
    assert (bundles / "onnx" / "driver-id-host.edgemask").stat().st_size > 100_000
    run(host / "python", *PIP, "check", cwd=bundles)


def test_the_runtime_wheel_and_one_engine_run_the_bundle(
    tmp_path: Path, offline: tuple[str, ...], host: Path, bundles: Path, frames: Path
) -> None:
    device = environment(tmp_path / "venv", *offline, "edgemask-runtime[onnxruntime]")
    bundle = bundles / "onnx" / "driver-id-host.edgemask"
    told = answers(device / "edgemaskd", bundle, frames)
    assert len(told) == 3
    assert told == answers(host / "edgemaskd", bundle, frames)
    body = (
        "import sys, edgemask_runtime.daemon as d\n"
        f"d.main(['run', {str(bundle)!r}, '--source', {str(frames)!r}, '--listen', 'none', '--output', 'answers'])\n"
        f"assert not set({FORBIDDEN!r}) & set(sys.modules)\n"
    )
    run(device / "python", "-c", body, cwd=tmp_path)


def test_the_runtime_is_small(tmp_path: Path, offline: tuple[str, ...]) -> None:
    run(sys.executable, *PIP, "install", "--target", tmp_path, *offline, "edgemask-runtime", cwd=tmp_path)
    sizes = {entry: _size(entry) for entry in tmp_path.iterdir()}
    numpy = sum(size for entry, size in sizes.items() if entry.name.startswith("numpy"))
    rest = sum(sizes.values()) - numpy
    assert rest <= 10 * MEGABYTE
    assert numpy + rest <= 90 * MEGABYTE


@pytest.fixture(scope="module")
def old_device(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """tflite-runtime 2.14 and numpy 1.x, from the registry: they are not among the wheels."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has no wheel for this Python")
    wheel = next(wheels.glob("edgemask_runtime-*.whl"))
    return environment(tmp_path_factory.mktemp("old") / "venv", f"{wheel}[tflite]")


def test_tflite_runtime_answers_as_litert_does(old_device: Path, host: Path, bundles: Path, frames: Path) -> None:
    bundle = bundles / "tflite" / "driver-id-host.edgemask"
    told = answers(old_device / "edgemaskd", bundle, frames, "--engine", "tflite")
    expected = answers(host / "edgemaskd", bundle, frames)
    assert [line["name"] for line in told] == [line["name"] for line in expected]
    _assert_close([line["outputs"] for line in told], [line["outputs"] for line in expected])


def test_tflite_runtime_loads_every_step(tmp_path: Path, old_device: Path, host: Path) -> None:
    shutil.copy(ROOT / "tests" / "models" / "keras_float.tflite", tmp_path)
    (tmp_path / "all.toml").write_text(ALL_STEPS)
    run(host / "edgemask", "bake", "-o", "all.tflite", "--recipe", "all.toml", cwd=tmp_path)
    told = json.loads(run(old_device / "python", "-c", RUN_ONCE, "tflite", "all.tflite", cwd=tmp_path))
    expected = json.loads(run(host / "python", "-c", RUN_ONCE, "litert", "all.tflite", cwd=tmp_path))
    assert "suspicion" in expected
    _assert_close([told], [expected])


def _assert_close(told: list[dict[str, list[float]]], expected: list[dict[str, list[float]]]) -> None:
    for line, other in zip(told, expected, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            np.testing.assert_allclose(line[name], other[name], rtol=1e-4, atol=1e-4)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
