"""Wheels of a release: whole locks, a cache that is not believed, and one runtime wheel in all places."""

from __future__ import annotations

import base64
import csv
import email
import hashlib
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.tags import cpython_tags
from packaging.utils import parse_wheel_filename

import edgemask_runtime
from edgemask.errors import UserError
from edgemask.target import Target, find_target, targets, versions
from edgemask.wheels import Pin, fetching, glibc_for, lock_for, pinned_pythons, runtime_wheel, wheels_for
from edgemask.wheels.glibc import newest, wanted_glibc
from edgemask.wheels.lock import read_lock
from edgemask.wheels.own import find_runtime, from_checkout, from_installed, wheel_of
from edgemask.wheels.store import cache

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "targets" / "wheels").glob("*-cp*.txt"))
RUNTIME = ROOT / "runtime" / "pyproject.toml"
EXTRAS = set(tomllib.loads(RUNTIME.read_text())["project"]["optional-dependencies"]) - {"tflite"}
CONTENT = b"no wheel, but something that has a digest"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def one_pin(monkeypatch: pytest.MonkeyPatch) -> Pin:
    """A lock of one wheel."""
    pin = Pin("thing", "1.0", DIGEST, ("base",))
    monkeypatch.setattr(fetching, "lock_for", lambda arch, python, wanted: (pin,))
    return pin


def kept(pin: Pin, content: bytes = CONTENT) -> Path:
    path = cache() / pin.sha256 / "thing-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_there_is_a_lock_for_every_board() -> None:
    assert pinned_pythons("aarch64") == pinned_pythons("x86_64") == ("3.10", "3.11", "3.12", "3.13")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_what_every_extra_needs(lock: Path) -> None:
    pins = read_lock(lock)
    assert EXTRAS | {"base"} == {group for pin in pins for group in pin.groups}
    assert [pin.name for pin in pins] == sorted({pin.name for pin in pins})
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_fulfils_what_the_runtime_states(lock: Path) -> None:
    stated = tomllib.loads(RUNTIME.read_text())["project"]
    versions = {pin.name: pin.version for pin in read_lock(lock)}
    needs = map(
        Requirement, [*stated["dependencies"], *(n for e in EXTRAS for n in stated["optional-dependencies"][e])]
    )
    python = f"3.{lock.stem.rpartition('cp3')[2]}"
    for need in needs:
        if need.marker is None or need.marker.evaluate({"python_version": python}):
            assert need.specifier.contains(versions[need.name]), need


def test_a_release_gets_no_more_than_it_asks_for() -> None:
    names = {pin.name for pin in lock_for("aarch64", "3.11", ("onnxruntime", "install"))}
    assert {"numpy", "uvicorn", "onnxruntime", "cryptography"} <= names
    assert not {"av", "ai-edge-litert", "grpcio", "pillow"} & names


def test_an_extra_or_a_python_that_is_not_pinned() -> None:
    with pytest.raises(UserError, match="unknown extra of edgemask-runtime 'onnxrt'") as caught:
        lock_for("aarch64", "3.11", ("onnxrt",))
    assert "did you mean 'onnxruntime'?" in (caught.value.hint or "")
    with pytest.raises(UserError, match=r"no wheels are pinned for aarch64, CPython 3\.9") as caught:
        lock_for("aarch64", "3.9", ())
    assert "allowed: 3.10, 3.11, 3.12, 3.13" in (caught.value.hint or "")


def test_offline_takes_from_the_cache(one_pin: Pin) -> None:
    path = kept(one_pin)
    assert wheels_for(find_target("raspberrypi"), "3.11", offline=True) == [path]


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b" "])
def test_offline_does_not_believe_the_cache(content: bytes, one_pin: Pin) -> None:
    kept(one_pin, content)
    with pytest.raises(UserError, match=r"offline, and 1 wheels for aarch64, CPython 3\.11 .*: thing 1\.0") as caught:
        wheels_for(find_target("raspberrypi"), "3.11", offline=True)
    assert "once without --offline" in (caught.value.hint or "")


def test_an_altered_wheel_in_the_cache_is_fetched_again(
    one_pin: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pin = a_wheel(tmp_path)
    monkeypatch.setattr(fetching, "lock_for", lambda arch, python, wanted: (pin,))
    no_index(monkeypatch, source)
    told: list[str] = []
    [path] = wheels_for(find_target("raspberrypi"), "3.11", progress=told.append)
    path.write_bytes(b"altered")
    [again] = wheels_for(find_target("raspberrypi"), "3.11")
    assert path == again
    assert again.read_bytes() == source.read_bytes()
    assert told == ["thing 1.0 (1 of 1)"]
    assert [item.name for item in cache().iterdir()] == [pin.sha256]


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, pin = a_wheel(tmp_path)
    no_index(monkeypatch, source)
    foreign = Pin(pin.name, pin.version, "0" * 64, pin.groups)
    monkeypatch.setattr(fetching, "lock_for", lambda arch, python, wanted: (foreign,))
    with pytest.raises(UserError, match=r"cannot fetch thing 1\.0 for aarch64, CPython 3\.11: its digest is not"):
        wheels_for(find_target("raspberrypi"), "3.11")
    assert not list(cache().rglob("*.whl"))


def test_a_wheel_that_no_index_has(one_pin: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_index(monkeypatch, tmp_path / "nothing.whl")
    with pytest.raises(UserError, match=r"cannot fetch thing 1\.0 for aarch64, CPython 3\.11: ") as caught:
        wheels_for(find_target("raspberrypi"), "3.11")
    assert "PIP_FIND_LINKS" in (caught.value.hint or "")


def test_an_index_that_cannot_be_reached(one_pin: Pin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match=r"thing 1\.0 for aarch64, CPython 3\.11: no package index could be reached"):
        wheels_for(find_target("raspberrypi"), "3.11")


def no_index(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    """Let pip see one folder and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


def a_wheel(folder: Path) -> tuple[Path, Pin]:
    """A small wheel for the board, and the pin that it fits."""
    path = folder / "index" / "thing-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    return path, Pin("thing", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), ("base",))


@pytest.mark.parametrize("board", targets().values(), ids=lambda board: board.name)
@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_every_systems_glibc_has_what_the_wheels_ask_for(board: Target, form: str) -> None:
    extras = board.extras(form, ("images", "grpc", "video"))  # type: ignore[arg-type]
    for system in board.systems if board.arch != "any" else ():
        wanted = [pin.glibc for pin in fetching.pins_for(board, system.python, extras) if pin.glibc]
        assert max(map(versions, wanted)) <= versions(system.glibc), system
    assert versions(glibc_for(board, extras)) >= (2, 28)


def test_a_wheel_asks_for_what_its_libraries_name(tmp_path: Path) -> None:
    """readelf is the oracle: of a library of NumPy's, and of one whose name alone is a library's."""
    if (readelf := shutil.which("readelf")) is None:
        pytest.skip("readelf is missing: install binutils")
    [library, *_] = Path(numpy.__file__).parent.glob("_core/_multiarray_umath*.so")
    told = subprocess.run([readelf, "--version-info", library], capture_output=True, text=True, check=True).stdout
    minors = [int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", told)]
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(library, "thing/library.so.1")
        archive.writestr("thing/text.so", "\0GLIBC_2.99\0")
    assert wanted_glibc(wheel) == f"2.{max(minors)}"


def test_a_wheel_without_libraries_asks_for_no_glibc(tmp_path: Path) -> None:
    wheel, _ = a_wheel(tmp_path)
    assert wanted_glibc(wheel) is None
    assert newest([None, "2.9", None]) == "2.17"
    assert newest(["2.28", None, "2.34", "2.4"]) == "2.34"


@pytest.mark.parametrize("python", ["3.10", "3.13"])
@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_pip_is_asked_for_what_a_board_with_glibc_2_28_can_load(arch: str, python: str) -> None:
    options = fetching.platform_options(arch, python)
    platforms = [option.partition("=")[2] for option in options if option.startswith("--platform=")]
    minor = int(python.partition(".")[2])
    assert f"manylinux_2_28_{arch}" in platforms
    assert f"manylinux_2_29_{arch}" not in platforms
    assert {str(tag).split("-")[2] for tag in cpython_tags((3, minor), [f"cp3{minor}"], platforms)} <= {
        *platforms,
        "any",
    }


def test_the_runtimes_wheel_is_the_same_from_a_checkout_and_from_an_installation(tmp_path: Path) -> None:
    made = wheel_of(from_checkout(RUNTIME))
    assert made == wheel_of(from_checkout(RUNTIME))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        archive.extractall(tmp_path)
    [installed] = importlib.metadata.distributions(path=[str(tmp_path)])
    assert wheel_of(from_installed(installed)) == made


def test_the_runtimes_wheel_states_what_setuptools_states() -> None:
    known = importlib.metadata.distribution("edgemask-runtime")
    made = find_runtime()
    assert (made.version, made.summary) == (known.version, known.metadata["Summary"])
    assert made.python == known.metadata["Requires-Python"]
    assert set(made.requires) == {str(Requirement(need)) for need in known.requires or []}
    assert set(made.extras) == set(known.metadata.get_all("Provides-Extra") or [])
    scripts = {entry.name: entry.value for entry in known.entry_points if entry.group == "console_scripts"}
    assert made.programs == scripts


def test_the_runtimes_wheel_holds_every_file_of_the_package_and_a_true_record() -> None:
    path = runtime_wheel()
    assert path == runtime_wheel()
    assert str(parse_wheel_filename(path.name)[0]) == "edgemask-runtime"
    package = Path(edgemask_runtime.__file__).parent
    sources = {file.relative_to(package.parent).as_posix() for file in package.rglob("*.py")}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert sources <= set(names)
        [record] = [name for name in names if name.endswith("/RECORD")]
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert [row[0] for row in rows] == names
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(content)))
        about = email.message_from_bytes(archive.read(record.replace("RECORD", "METADATA")))
        assert re.fullmatch(r"\d+\.\d+\.\d+", about["Version"])


def test_pip_installs_the_runtimes_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, f"--target={tmp_path}", str(runtime_wheel())], check=True, timeout=300)
    code = "import edgemask_runtime as e, importlib.metadata as m; print(e.__file__, m.version('edgemask-runtime'))"
    command = [sys.executable, "-c", code]
    outside = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path))
    assert (tmp_path / "bin" / "edgemaskd").is_file()
