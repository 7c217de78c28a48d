"""edgemaskd warm-up: the models start once, and nothing of a daemon that runs is in its way."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from edgemask_runtime.bundle import Bundle, payload_digest, write_bundle
from edgemask_runtime.cascade import open_bundle
from edgemask_runtime.service import model_options
from edgemask_runtime.settings import ModelSettings

from .running import run_daemon
from .tiny import MakeBundle

SETTINGS = """schema = 1
[http]
listen = "{listen}"
[[models]]
name = "tiny"
bundle = "{bundle}"
socket = "{socket}"
[[pipelines]]
name = "front"
model = "tiny"
[pipelines.source]
kind = "folder"
path = "nowhere"
"""


def settings_of(folder: Path, bundle: Path | str, listen: str = "127.0.0.1:0", ring: str = "ring") -> Path:
    path = folder / "edgemaskd.toml"
    path.write_text(SETTINGS.format(bundle=bundle, listen=listen, socket=ring))
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_models_start_and_say_on_what(make_bundle: MakeBundle, tmp_path: Path, engine: str) -> None:
    bundle = make_bundle(engine)
    with socket.socket() as door, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ring:
        door.bind(("127.0.0.1", 0))
        door.listen()
        ring.bind(str(tmp_path / "ring"))
        ring.listen()
        port = door.getsockname()[1]
        done = run_daemon("warm-up", settings_of(tmp_path, bundle, f"127.0.0.1:{port}"), "--json")
    assert done.returncode == 0, done.stderr
    first, *_, last = (json.loads(line) for line in done.stdout.splitlines())
    assert first == {"warming": "warm-up of tiny"}
    model = last["warm"]["models"]["tiny"]
    assert model["digest"] == payload_digest(Bundle.open(bundle).manifest)
    assert model["engine"].startswith(engine)
    assert last["warm"]["door"] == {"host": "127.0.0.1", "port": port, "tls": False, "certified": False}
    assert (tmp_path / "ring").exists()


def test_a_door_at_any_port_is_none_to_ask(make_bundle: MakeBundle, tmp_path: Path) -> None:
    done = run_daemon("warm-up", settings_of(tmp_path, make_bundle()), "--json")
    assert json.loads(done.stdout.splitlines()[-1])["warm"]["door"] is None


def test_the_owners_settings_mean_the_slot_that_is_not_current_yet(make_bundle: MakeBundle, tmp_path: Path) -> None:
    slot = tmp_path / "slots" / "b"
    slot.mkdir(parents=True)
    settings = settings_of(tmp_path, tmp_path / "current" / "models" / "tiny.edgemask")
    without = run_daemon("warm-up", settings)
    assert without.returncode == 2
    assert "no such bundle" in without.stderr
    (slot / "models").mkdir()
    (slot / "models" / "tiny.edgemask").write_bytes(make_bundle().read_bytes())
    done = run_daemon("warm-up", settings, "--slot", slot)
    assert done.returncode == 0, done.stderr
    assert "model tiny: onnxruntime" in done.stdout


def test_a_model_that_answers_otherwise_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    inner = Bundle.open(make_bundle())
    told = {"name": "probabilities", "frame": 0, "shape": [1, 4], "values": [0.9, 0.05, 0.05, 0.0]}
    probe = {"schema": 1, "engine": "e", "provider": "cpu", "machine": "m", "elsewhere_db": 60.0, "outputs": [told]}
    other = tmp_path / "other.edgemask"
    write_bundle(other, inner.manifest, {"model.onnx": inner.read("model.onnx")}, {"probe": probe})
    done = run_daemon("warm-up", settings_of(tmp_path, other))
    assert done.returncode == 2
    assert "answers otherwise than where it was built" in done.stderr


def test_tensorrt_gets_the_time_to_build_and_a_place(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Bundle.open(make_bundle()).manifest
    settings = ModelSettings("tiny", tmp_path)
    gpu = dataclasses.replace(manifest, providers=("tensorrt", "cuda"))
    assert model_options(settings, manifest).cache is None
    assert model_options(settings, gpu).cache is None
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    options = model_options(settings, gpu)
    assert options.cache == tmp_path / "engines"
    assert options.cache.is_dir()
    assert options.start_limit_s >= 10 * 60
    assert model_options(settings, manifest).start_limit_s < options.start_limit_s


def test_each_bundle_has_a_folder_of_its_own_for_engines(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, cache = Bundle.open(make_bundle()), tmp_path / "engines"
    cache.mkdir()
    for _ in range(2):
        open_bundle(bundle, cache=cache)
        assert [path.name for path in cache.iterdir()] == [payload_digest(bundle.manifest)]
