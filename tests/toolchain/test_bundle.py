"""Bundles: the same on any machine, what the baked file says, and none at all when parity fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgemask
from edgemask.bundle import Built
from edgemask.errors import UserError
from edgemask.masks.bit_depth import BitDepth
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.rounding import to_float
from edgemask_runtime.answers import read_outputs
from edgemask_runtime.bundle import Bundle, payload_digest
from edgemask_runtime.images import read_image
from edgemask_runtime.manifest import CanRecord
from edgemask_runtime.predictor import Predictor

from .files import FOLDER
from .pictures import FOLDER as IMAGES

EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id" / "edgemask.toml"
TARGETS = ("host", "jetson", "raspberrypi")
RECIPE = """
schema = 1
name = "garments"
[model]
file = "{model}"
labels = "labels.txt"
[frame]
width = 40
height = 36
colour = "bgr"
[verify]
images = "{images}"
[runtime]
max_age_ms = 250
{extra}
[[runtime.can]]
message = "classification"
id = 0x12345
extended = true
[[steps]]
kind = "rgb"
[[steps]]
kind = "resize"
width = 32
height = 32
{masks}
{normalise}
[[outputs]]
kind = "top-k"
k = 3
"""
LABELS = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot".split()
MakeRecipe = Callable[..., Path]


@pytest.fixture
def make_recipe(tmp_path: Path) -> MakeRecipe:
    """A recipe around a test model, with masks by name."""

    def make(model: str = "tf2onnx_nhwc.onnx", *masks: str, extra: str = "") -> Path:
        shutil.copy(FOLDER / model, tmp_path / model)
        (tmp_path / "labels.txt").write_text("\n".join(LABELS))
        text = RECIPE.format(
            model=model,
            images=IMAGES / "fashion",
            extra=extra,
            masks="\n".join(f'[[steps]]\nkind = "{mask}"' for mask in masks),
            normalise="" if "int8" in model else '[[steps]]\nkind = "normalise"',
        )
        (tmp_path / "edgemask.toml").write_text(text)
        return tmp_path / "edgemask.toml"

    return make


def payload(built: Built) -> dict[str, bytes]:
    """Every file of the bundle but the evidence, which is the machine's own."""
    with zipfile.ZipFile(built.bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "evidence.json"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_for_each_target(target: str, tmp_path: Path) -> None:
    built = edgemask.build(EXAMPLE, target, tmp_path / "out", images=IMAGES)
    assert built.bundle == tmp_path / "out" / f"driver-id-{target}.edgemask"
    bundle = Bundle.open(built.bundle)
    assert (bundle.manifest, bundle.manifest.target) == (built.manifest, target)
    assert built.digest == payload_digest(bundle.manifest)
    assert (built.parity.passed, built.parity.images) == (True, 8)
    assert bundle.evidence["parity"]["passed"] is True
    assert bundle.evidence["machine"]["numpy"] == np.__version__


@pytest.mark.parametrize("model", ["tf2onnx_nhwc.onnx", "keras_int8.tflite"])
def test_the_same_payload_on_any_machine(model: str, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Other folders, another time, another language, other rights: the same bytes."""
    here = edgemask.build(make_recipe(model, "noise", "jpeg"), "raspberrypi", tmp_path / "out")
    there = tmp_path / "elsewhere" / "deeper"
    there.mkdir(parents=True)
    for name in (model, "labels.txt", "edgemask.toml"):
        shutil.copy(tmp_path / name, there / name)
        os.utime(there / name, (0, 0))
    code = """
import os, sys, edgemask
os.umask(0o077)
print(edgemask.build("edgemask.toml", "raspberrypi", "out").digest)
"""
    other = {
        "HOME": str(there),
        "LANG": "tr_TR.ISO-8859-9",
        "LC_ALL": "C",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "7",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=there, env={**os.environ, **other}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here.digest
    with zipfile.ZipFile(there / "out" / "garments-raspberrypi.edgemask") as archive:
        assert {name: archive.read(name) for name in payload(here)} == payload(here)


@pytest.mark.parametrize("model", ["tf2onnx_nhwc.onnx", "keras_int8.tflite"])
def test_the_manifest_says_what_the_artefact_says(model: str, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(model, "noise", "jpeg", "bit-depth")
    built, baked = edgemask.build(recipe, "host", tmp_path / "out"), edgemask.bake(recipe=recipe)
    manifest, label = built.manifest, baked.artefact.label
    assert Bundle.open(built.bundle).read(manifest.model.file) == baked.artefact.model.data
    assert manifest.files[manifest.model.file].sha256 == hashlib.sha256(baked.artefact.model.data).hexdigest()
    assert manifest.model.source.sha256 == hashlib.sha256((FOLDER / model).read_bytes()).hexdigest()
    assert (manifest.frame, manifest.entropy, manifest.outputs) == (label.frame, label.entropy, label.outputs)
    assert (manifest.frame.colour, manifest.frame.shape) == ("bgr", (36, 40, 3))
    assert [(s.kind, s.cuts) for s in manifest.chain][:5] == [
        ("rgb", False),
        ("resize", True),
        ("noise", False),
        ("jpeg", True),
        ("bit-depth", True),
    ]
    assert (manifest.proof.masked, manifest.proof.cut_by) == (True, ("4.jpeg",))
    assert manifest.proof.lift_at == ", ".join(baked.proof.lift_at)
    assert manifest.labels == tuple(LABELS)
    assert manifest.max_age_ms == 250
    assert manifest.can == (CanRecord("classification", 0x12345, True, 0x2345, 100),)
    assert manifest.engine == {"onnx": "onnxruntime", "tflite": "litert"}[manifest.model.format]
    assert manifest.entropy is not None
    engine = baked.artefact.model.open()
    assert {info.name: info.shape[1] for info in engine.inputs}["entropy"] == manifest.entropy.bytes == 32 * 32 * 3 * 4


def test_no_noise_needs_no_entropy(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    assert edgemask.build(make_recipe("keras_int8.tflite", "jpeg"), "host", tmp_path / "out").manifest.entropy is None


@pytest.mark.parametrize("model", ["tf2onnx_nhwc.onnx", "keras_int8.tflite"])
def test_the_device_answers_as_predict_does(model: str, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(model, "jpeg")
    built = edgemask.build(recipe, "host", tmp_path / "out")
    artefact = tmp_path / f"baked{Path(model).suffix}"
    edgemask.bake(recipe=recipe, out=artefact)
    predictor = Predictor.open(Bundle.open(built.bundle))
    files = sorted((IMAGES / "fashion").glob("*.png"))
    for path, answer in zip(files, edgemask.predict(artefact, files), strict=True):
        frame = read_image(path, width=40, height=36, colour="bgr").pixels
        reading = read_outputs(built.manifest, predictor.predict(frame[None]))
        assert [(guess.label, guess.score) for guess in reading.top] == [
            (guess["label"], guess["score"]) for guess in answer["top"]
        ]
        assert reading.outputs == answer["outputs"]
        assert answer["top"][0]["label"] in LABELS


def test_a_squeeze_has_a_threshold(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    squeeze = '[thresholds]\nsuspicion = 0.25\n[[steps]]\nkind = "feature-squeeze"\nscores = "probabilities"\n'
    built = edgemask.build(make_recipe(extra=squeeze), "host", tmp_path / "out")
    assert built.manifest.thresholds == {"suspicion": 0.25}
    assert [output.role for output in built.manifest.outputs] == ["suspicion", "raw", "top-scores", "top-indices"]
    with pytest.raises(UserError, match=r"\$\.thresholds\.suspicion: no step gives this output"):
        edgemask.build(make_recipe(extra="[thresholds]\nsuspicion = 0.25\n"), "host", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def off_by_one_where_black(ops: Any, x: Any) -> Any:
    """One more on a frame that is black all over, which no random frame is."""
    brightest = to_float(ops, x)
    for axis in range(3):
        brightest = ops.reduce_max(brightest, axis)
    return ops.add(to_float(ops, x), ops.cast(ops.equal(brightest, 0.0), "float32"))


@pytest.mark.parametrize("name", ["black.png", "grey.png"])
def test_no_bundle_when_parity_fails_on_one_picture(
    name: str, make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = BitDepth.build

    def build(self: BitDepth, ops: Any, x: Any, entropy: Any) -> Any:
        made = right(self, ops, x, entropy)
        return made if isinstance(ops, NumpyOps) else off_by_one_where_black(ops, made)

    monkeypatch.setattr(BitDepth, "build", build)
    recipe, out = make_recipe("tf2onnx_nhwc.onnx", "bit-depth"), tmp_path / "out"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (40, 36), name.partition(".")[0]).save(pictures / name)
    if name == "black.png":
        with pytest.raises(UserError, match=r"parity fails: 3\.bit-depth"):
            edgemask.build(recipe, "host", out, images=pictures)
        assert not out.exists()
    else:
        assert edgemask.build(recipe, "host", out, images=pictures).bundle.exists()


def test_the_report_says_what_was_shown_and_what_was_not(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    built = edgemask.build(make_recipe("tf2onnx_nhwc.onnx", "noise", "jpeg"), "jetson", tmp_path / "out")
    report = built.report.read_text()
    assert report.startswith("# garments for jetson\n")
    assert built.manifest.model.source.sha256 in report
    for index, step in enumerate(built.manifest.chain, 1):
        assert f"| {index} | {step.kind} | {step.role} |" in report
    assert "Every path from the frame to the model is cut by 2.resize, 4.jpeg" not in report
    assert "Every path from the frame to the model is cut by 4.jpeg." in report
    assert "The model can be lifted out at: `" in report
    assert "Gradient masking does not stop an attacker who adapts to it." in report
    assert "No robustness was measured here." in report
    assert "10 images and 4 random frames" in report
    assert all(f"| {entry.name} | " in report for entry in (*built.parity.steps, *built.parity.outputs))
    bare = edgemask.build(make_recipe(), "host", tmp_path / "bare").report.read_text()
    assert "**Not masked**: a gradient path joins the frame and the model." in bare


def test_a_second_build_replaces_the_first(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    first = edgemask.build(make_recipe("keras_int8.tflite", "median"), "host", tmp_path / "out")
    second = edgemask.build(make_recipe("keras_int8.tflite", "jpeg"), "host", tmp_path / "out")
    assert (first.bundle, first.digest == second.digest) == (second.bundle, False)
    assert Bundle.open(second.bundle).manifest == second.manifest
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["garments-host.edgemask", "report.md"]


def test_evidence_is_outside_the_digest(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("keras_int8.tflite", "jpeg")
    many = edgemask.build(recipe, "host", tmp_path / "many")
    one = edgemask.build(recipe, "host", tmp_path / "one", images=IMAGES / "cat.png")
    assert many.digest == one.digest
    assert [Bundle.open(built.bundle).evidence["parity"]["images"] for built in (many, one)] == [10, 1]
    assert json.loads(payload(one)["manifest.json"]) == json.loads(one.manifest.to_json())
