"""A keyed mask end to end: a model trained under a key answers with it, and the key is nowhere but where it belongs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import edgemask
from edgemask.artefact import read_artefact
from edgemask.bundle import Built
from edgemask.cli import app
from edgemask.errors import UserError
from edgemask.listing import inspection_text, parity_text
from edgemask.ops.rounding import to_float
from edgemask.spec import Spec
from edgemask.steps import KeyedMask
from edgemask_runtime.bundle import Bundle, KeyInput
from edgemask_runtime.engines import open_engine

from .files import FOLDER, Array
from .pictures import FOLDER as IMAGES
from .pictures import fashion
from .tampering import with_label

TEST_KEY = hashlib.shake_128(b"block_shuffle.onnx: a test key, no secret").digest(96)
GARMENTS = np.stack(fashion())
PICTURES = sorted((IMAGES / "fashion").glob("*.png"))
FAMILIES = ("torch_nchw.onnx", "torch_nchw_opset11.onnx", "keras_float.tflite", "keras_uint8.tflite")
RECIPE = """
schema = 1
name = "garments"
[model]
file = "{model}"
trained_with = ["block-shuffle"]
[frame]
width = 32
height = 32
colour = "rgb"
[[steps]]
kind = "block-shuffle"
[[steps]]
kind = "normalise"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[verify]
images = "{images}"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "edgemask.toml"
    path.write_text(RECIPE.format(model=FOLDER / "block_shuffle.onnx", images=IMAGES / "fashion"))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path, TEST_KEY)


def key_file(folder: Path, content: bytes) -> Path:
    path = folder / "test.key"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def right(artefact: Path, **options: Any) -> int:
    """How many of the ten garments, which lie in the order of their labels, are named rightly."""
    answers = edgemask.predict(artefact, PICTURES, **options)
    return sum(int(np.argmax(answer["outputs"]["logits"])) == label for label, answer in enumerate(answers))


def test_the_model_answers_under_its_own_key_and_hardly_under_another(recipe: Path, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "baked.onnx"
    edgemask.bake(recipe=recipe, out=out)
    assert right(out, key=key) >= 9
    others = [right(out, key=key_file(tmp_path, np.random.default_rng(seed).bytes(96))) for seed in range(20)]
    assert np.mean(others) < 6


@pytest.mark.parametrize("mask", ["block-shuffle", "bit-flip:block=3", "ffx-permutation"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_bakes_into_both_families(name: str, mask: str, tmp_path: Path) -> None:
    out = tmp_path / name
    baked = edgemask.bake(FOLDER / name, out, masks=["noise", mask, "median"], trained_with_mask=True)
    assert [info.name for info in baked.artefact.model.inputs] == ["frame", "entropy", "key"]
    parity = edgemask.verify(out, source=FOLDER / name, images=IMAGES / "fashion")
    assert (parity.passed, parity.replays, parity.keyed) == (True, True, True)
    assert "the key decides the masked tensor: yes" in parity_text(parity)


@pytest.mark.parametrize("mask", ["block-shuffle", "bit-flip", "ffx-permutation"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_key_answers_as_the_input_does(name: str, mask: str, tmp_path: Path) -> None:
    secret, public = tmp_path / f"secret-{name}", tmp_path / f"public-{name}"
    label = edgemask.bake(FOLDER / name, secret, masks=[mask], trained_with_mask=True).artefact.label
    assert label.key is not None
    content = np.random.default_rng(1).bytes(label.key.bytes)
    path = key_file(tmp_path, content)
    edgemask.bake(FOLDER / name, public, masks=[mask], trained_with_mask=True, publish_key=path)
    rows = np.tile(np.frombuffer(content, np.uint8), (1, 1))
    for garment in GARMENTS[:, None]:
        given, expected = run(public, {"frame": garment}), run(secret, {"frame": garment, "key": rows})
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    assert (content in secret.read_bytes(), content in public.read_bytes()) == (False, True)
    assert edgemask.verify(public, source=FOLDER / name).passed


def run(artefact: Path, feeds: dict[str, Array]) -> Array:
    model = read_artefact(artefact).model
    return next(iter(open_engine(model.engine, model.data).run(feeds).values())).astype(np.float64)


def test_a_published_key_serves_a_batch_of_any_size(recipe: Path, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "public.onnx"
    edgemask.bake(recipe=recipe, out=out, publish_key=key)
    alone = np.concatenate([run(out, {"frame": garment}) for garment in GARMENTS[:, None]])
    np.testing.assert_allclose(run(out, {"frame": GARMENTS}), alone, rtol=1e-4, atol=1e-4)
    assert right(out) >= 9
    with pytest.raises(UserError, match="takes no key"):
        right(out, key=key)


def built(recipe: Path, tmp_path: Path, **options: Any) -> tuple[Built, bytes]:
    made = edgemask.build(recipe, "host", tmp_path / "out", **options)
    return made, made.bundle.read_bytes() + made.report.read_bytes()


def test_a_bundle_never_holds_the_key_unless_it_is_published(recipe: Path, key: Path, tmp_path: Path) -> None:
    secret, content = built(recipe, tmp_path)
    assert secret.manifest.key == KeyInput("key", 96, published=False)
    assert Bundle.open(secret.bundle).manifest.key == secret.manifest.key
    assert not any(form in content for form in (TEST_KEY, TEST_KEY.hex().encode()))
    public, content = built(recipe, tmp_path, publish_key=key)
    assert public.manifest.key == KeyInput("key", 96, published=True)
    assert TEST_KEY in content
    assert "**Key:** 96 bytes, PUBLIC" in public.report.read_text()
    assert TEST_KEY.hex() not in public.manifest.to_json() + public.report.read_text()


@pytest.mark.parametrize("published", [False, True])
def test_the_daemon_answers_as_predict_does(recipe: Path, key: Path, tmp_path: Path, published: bool) -> None:
    made, _ = built(recipe, tmp_path, **({"publish_key": key} if published else {}))
    command = [sys.executable, "-m", "edgemask_runtime.daemon", "run", str(made.bundle), "--listen", "none"]
    command += ["--source", str(IMAGES / "fashion"), "--fps", "0", *([] if published else ["--key", str(key)])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answers = [json.loads(line)["outputs"]["logits"] for line in done.stdout.splitlines()]
    assert sum(int(np.argmax(answer)) == label for label, answer in enumerate(answers)) >= 9
    assert TEST_KEY.hex() not in done.stdout + done.stderr


def test_inspect_says_where_the_key_is_and_never_the_key(recipe: Path, key: Path, tmp_path: Path) -> None:
    said = {}
    for name, options in (("secret", {}), ("public", {"publish_key": key})):
        out = tmp_path / f"{name}.onnx"
        edgemask.bake(recipe=recipe, out=out, **options)  # type: ignore[arg-type]
        found = edgemask.inspect(out)
        assert found["key"] == {"name": "key", "bytes": 96, "published": name == "public"}
        assert [step["key_bytes"] for step in found["steps"]] == [96, 0, 0]
        said[name] = inspection_text(found) + json.dumps(found)
        assert TEST_KEY.hex() not in said[name]
    assert "96 bytes, PUBLIC" in said["public"]
    assert "PUBLIC" not in said["secret"]
    assert "96 bytes, secret: an input" in said["secret"]


def test_a_keyed_file_is_not_answered_without_its_key(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "baked.onnx"
    edgemask.bake(recipe=recipe, out=out)
    with pytest.raises(UserError, match="garments needs its key of 96 bytes") as error:
        right(out)
    assert "new-key" in str(error.value.hint)
    with pytest.raises(UserError, match="95 bytes; the key has 96"):
        right(out, key=key_file(tmp_path, bytes(95)))
    loose = key_file(tmp_path, TEST_KEY)
    loose.chmod(0o644)
    with pytest.raises(UserError, match="others than its owner"):
        right(out, key=loose)


def test_only_a_chain_that_takes_a_key_publishes_one(key: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no step takes a key"):
        edgemask.bake(FOLDER / "torch_nchw.onnx", tmp_path / "x.onnx", masks=["jpeg"], publish_key=key)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("published", [False, True])
def test_a_label_that_lies_about_its_key_is_refused(recipe: Path, key: Path, tmp_path: Path, published: bool) -> None:
    out, forged = tmp_path / "baked.onnx", tmp_path / "forged.onnx"
    edgemask.bake(recipe=recipe, out=out, publish_key=key if published else None)

    with_label(out, forged, lambda label: {**label, "key": {**label["key"], "published": not published}})
    with pytest.raises(UserError, match=r"\$\.(frame|key): "):
        read_artefact(forged)


def test_two_keyed_masks_have_shares_of_their_own(key: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.onnx"
    source = FOLDER / "torch_nchw.onnx"
    label = edgemask.bake(source, out, masks=["bit-flip", "block-shuffle"], trained_with_mask=True).artefact.label
    assert label.key == KeyInput("key", 192, published=False)
    frame, whole = GARMENTS[:1], np.random.default_rng(4).integers(0, 256, (1, 192), np.uint8)
    answers = [run(out, {"frame": frame, "key": whole})]
    for begin in (0, 96):
        other = whole.copy()
        other[:, begin : begin + 96] ^= 255
        answers.append(run(out, {"frame": frame, "key": other}))
    assert len({answer.tobytes() for answer in answers}) == 3


def test_the_command_line(recipe: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "baked.onnx", str(PICTURES[8])
    app(["bake", "--recipe", str(recipe), "-o", str(out)], standalone_mode=False)
    app(["predict", str(out), picture, "--key", str(key), "--json"], standalone_mode=False)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert int(np.argmax(answer["outputs"]["logits"])) == 8
    app(["bake", "--recipe", str(recipe), "-o", str(out), "--publish-key", str(key)], standalone_mode=False)
    app(["predict", str(out), picture, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == answer
    options = ["--target", "host", "-o", str(tmp_path / "out"), "--publish-key", str(key), "--json"]
    app(["build", str(recipe), *options], standalone_mode=False)
    assert Bundle.open(Path(json.loads(capsys.readouterr().out)["bundle"])).manifest.key is not None


@dataclass(frozen=True)
class Deaf(KeyedMask):
    """A mask that takes a key and does not listen to it."""

    kind: ClassVar[str] = "deaf"

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def key_bytes(self, x: Spec) -> int:
        return 4

    def build(self, ops: Any, x: Any, entropy: Any) -> Any:
        return to_float(ops, x)


@pytest.mark.parametrize("name", ["torch_nchw.onnx", "keras_float.tflite"])
def test_a_key_that_decides_nothing_is_noticed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key input does not decide the masked tensor"):
        edgemask.bake(FOLDER / name, tmp_path / name, masks=[Deaf()])
    assert not (tmp_path / name).exists()


def test_the_listing_names_the_bytes() -> None:
    from edgemask.listing import step_catalogue

    found = {entry["kind"]: entry["key_bytes"] for entry in step_catalogue() if entry["key_bytes"]}
    assert found == {"block-shuffle": 96, "bit-flip": 96, "ffx-permutation": 608}
