"""Output steps that withhold: numpy's and scipy's figures, and nothing finer in the file, the bundle or an answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

import edgemask
from edgemask.chain import resolve
from edgemask.errors import UserError
from edgemask.models import read_model
from edgemask.outputs.high_confidence_only import HighConfidenceOnly
from edgemask.outputs.reverse_sigmoid import ReverseSigmoid
from edgemask.outputs.round_scores import RoundScores
from edgemask.outputs.softmax import Softmax
from edgemask.outputs.temperature import Temperature
from edgemask.outputs.top_1_only import Top1Only
from edgemask.outputs.top_k import TopK
from edgemask.spec import Spec
from edgemask.steps import Output, parse_step
from edgemask_runtime.answers import read_outputs
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.engines import TensorInfo
from edgemask_runtime.images import read_image
from edgemask_runtime.predictor import Predictor

from .files import FOLDER, Array, baked_answer
from .harness import INTERPRETERS, on_engine, reference
from .pictures import FOLDER as IMAGES
from .pictures import fashion

RNG = np.random.default_rng(3)
LOGITS = (RNG.normal(size=(40, 10)) * RNG.uniform(0, 9, (40, 1))).astype(np.float32)
ROWS = scipy.special.softmax(LOGITS.astype(np.float64), -1).astype(np.float32)
ROWS[0], ROWS[1] = np.eye(10)[3], 0.1
PICTURE = IMAGES / "fashion" / "7_sneaker.png"


def made(step: Output, scores: Array, interpreter: str = "numpy") -> dict[str, Array]:
    """What the step gives for the output `probabilities`."""
    names: list[str] = []

    def build(ops: Any, x: Any) -> tuple[Any, ...]:
        outputs = step.build(ops, {"probabilities": x})
        names[:] = outputs
        return tuple(outputs.values())

    values = reference(build, [scores]) if interpreter == "numpy" else on_engine(interpreter, build, [scores])
    return dict(zip(names, values, strict=True))


def reversed_sigmoid(y: Array, beta: float, gamma: float) -> Array:
    """Lee et al.'s formula with scipy's logarithms, where float32 holds what is left to 1."""
    inverse = np.log(np.maximum(y, 1e-9)) - np.log(np.maximum(1 - y, 2.0**-13))
    moved = np.maximum(y - beta * (scipy.special.expit(gamma * inverse) - 0.5), 0)
    return moved / moved.sum(-1, keepdims=True)


@pytest.mark.parametrize("interpreter", ["numpy", *INTERPRETERS])
class TestEveryEngine:
    def test_top_1_is_the_argmax(self, interpreter: str) -> None:
        (index,) = made(Top1Only(), ROWS, interpreter).values()
        np.testing.assert_array_equal(index, ROWS.argmax(-1, keepdims=True))
        assert index.dtype == np.int32

    @pytest.mark.parametrize("digits", [1, 2, 5])
    def test_rounding_is_numpys(self, digits: int, interpreter: str) -> None:
        (rounded,) = made(RoundScores(digits), ROWS, interpreter).values()
        np.testing.assert_allclose(rounded, ROWS.round(digits), atol=1e-7)
        assert len(np.unique(rounded)) <= 10**digits + 1

    @pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.1), (0.5, 0.37), (0.7, 1.0), (0.0, 0.2), (1.0, 0.01)])
    def test_reverse_sigmoid_is_its_formula(self, beta: float, gamma: float, interpreter: str) -> None:
        (moved,) = made(ReverseSigmoid(beta, gamma), ROWS, interpreter).values()
        np.testing.assert_allclose(moved, reversed_sigmoid(ROWS.astype(np.float64), beta, gamma), atol=3e-5)
        np.testing.assert_allclose(moved.sum(-1), 1, atol=1e-6)

    @pytest.mark.parametrize("threshold", [0.25, 0.9])
    def test_low_confidence_is_no_answer(self, threshold: float, interpreter: str) -> None:
        told = made(HighConfidenceOnly(threshold), ROWS, interpreter)
        kept = np.where(threshold > ROWS, 0, ROWS)
        np.testing.assert_array_equal(told["probabilities"], kept)
        np.testing.assert_array_equal(told["top_scores"], kept.max(-1, keepdims=True))
        best = np.where(kept.max(-1) > 0, ROWS.argmax(-1), -1)[:, None]
        np.testing.assert_array_equal(told["top_indices"], best)
        assert set(np.unique(best)) > {-1}

    @pytest.mark.parametrize("temperature", [0.01, 20.0])
    def test_temperature_scales(self, temperature: float, interpreter: str) -> None:
        scaled = made(Temperature(temperature), LOGITS, interpreter)["probabilities"]
        np.testing.assert_allclose(scaled, LOGITS / temperature, rtol=1e-6)


def test_reverse_sigmoid_misleads_and_keeps_a_sure_best_class() -> None:
    (moved,) = made(ReverseSigmoid(), ROWS).values()
    sure = ROWS.max(-1) > 0.4
    assert sure.sum() > 20
    np.testing.assert_array_equal(moved[sure].argmax(-1), ROWS[sure].argmax(-1))
    assert np.abs(moved - ROWS).max() > 0.3


def test_a_low_temperature_saturates_the_softmax() -> None:
    steps = (Temperature(0.01), Softmax())
    told = reference(lambda ops, x: steps[1].build(ops, steps[0].build(ops, {"x": x}))["probabilities"], [LOGITS[2:]])[
        0
    ]
    np.testing.assert_array_equal(told.argmax(-1), LOGITS[2:].argmax(-1))
    assert np.mean(told.max(-1) == 1) > 0.8


def fitted(*outputs: Output, name: str = "logits") -> list[str]:
    image = TensorInfo("image", "float32", (None, 32, 32, 3))
    frame, normalise = Spec.image(32, 32, "rgb"), parse_step("normalise", ("frame",))
    chain = resolve(frame, [normalise], [image], [TensorInfo(name, "float32", (None, 10))], outputs)  # type: ignore[list-item]
    return list(chain.outputs)


def test_what_is_left() -> None:
    assert fitted(Softmax(), TopK(3), Top1Only()) == ["top_indices"]
    assert fitted(Softmax(), RoundScores()) == ["probabilities"]
    assert fitted(Softmax(), RoundScores(), TopK(2)) == ["probabilities", "top_scores", "top_indices"]
    assert fitted(RoundScores(), name="probabilities") == ["probabilities"]
    assert fitted(RoundScores(of="scores"), name="scores") == ["probabilities"]
    assert fitted(Softmax(), HighConfidenceOnly()) == ["probabilities", "top_scores", "top_indices"]
    assert fitted(Temperature(), Softmax()) == ["logits", "probabilities"]


@pytest.mark.parametrize("step", [RoundScores(), ReverseSigmoid(), HighConfidenceOnly()])
def test_logits_are_no_probabilities(step: Output) -> None:
    with pytest.raises(UserError, match="needs probabilities, gets 'logits'") as error:
        fitted(step)
    assert "put softmax before it" in (error.value.hint or "")


def test_classes_are_no_scores() -> None:
    with pytest.raises(UserError, match="needs a score for every class, gets 'top_indices'"):
        fitted(TopK(3), Top1Only())


WITHHELD = {
    "top-1-only": "[[outputs]]\nkind = 'top-1-only'",
    "round-scores": "[[outputs]]\nkind = 'round-scores'\ndigits = 1",
    "reverse-sigmoid": "[[outputs]]\nkind = 'reverse-sigmoid'",
    "high-confidence-only": "[[outputs]]\nkind = 'high-confidence-only'\nthreshold = 0.6",
}
SOURCES = {"torch_nchw.onnx": True, "tf2onnx_nhwc.onnx": False, "keras_float.tflite": False, "keras_int8.tflite": False}
"""Test models of both families, with whether a softmax step is needed; the others' own output is `probabilities`."""


def recipe_of(folder: Path, name: str, outputs: str) -> Path:
    shutil.copy(FOLDER / name, folder / name)
    path = edgemask.init(folder / name, folder / "edgemask.toml", masks=["bit-depth"])
    softmax = "[[outputs]]\nkind = 'softmax'\n" if SOURCES[name] else ""
    path.write_text(path.read_text().partition("[[outputs]]")[0] + softmax + outputs + "\n")
    return path


def probabilities(baked: Path) -> Array:
    """Of all garments, by a bake that withholds nothing."""
    model = read_model(baked)
    answer = baked_answer(model, model.data, {"frame": np.stack(fashion())})
    if "probabilities" not in answer:
        return scipy.special.softmax(answer["logits"].astype(np.float64), -1)
    scale, zero_point = model.outputs[0].quantisation or (1.0, 0)
    return (answer["probabilities"].astype(np.float64) - zero_point) * scale


@pytest.mark.parametrize("kind", WITHHELD)
@pytest.mark.parametrize("name", SOURCES)
def test_from_the_recipe_to_the_answer(name: str, kind: str, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, name, WITHHELD[kind])
    open_ = tmp_path / f"open{Path(name).suffix}"
    edgemask.bake(FOLDER / name, open_, masks=["bit-depth"])
    built = edgemask.build(recipe, "host", tmp_path / "built", images=IMAGES / "fashion")
    bundle = Bundle.open(built.bundle)
    plain = probabilities(open_)
    expected = {
        "top-1-only": {"top_indices": plain.argmax(-1)[:, None]},
        "round-scores": {"probabilities": plain.round(1)},
        "reverse-sigmoid": {"probabilities": reversed_sigmoid(plain, 1.0, 0.1)},
        "high-confidence-only": {
            "probabilities": np.where(plain >= 0.6, plain, 0),
            "top_scores": np.where(plain >= 0.6, plain, 0).max(-1)[:, None],
            "top_indices": np.where(plain.max(-1) >= 0.6, plain.argmax(-1), -1)[:, None],
        },
    }[kind]
    assert [record.name for record in bundle.manifest.outputs] == list(expected)
    assert {record.role for record in bundle.manifest.outputs} == {name.replace("_", "-") for name in expected}
    assert (bundle.manifest.chain[-1].kind, bundle.manifest.chain[-1].gives) == (kind, ", ".join(expected))
    pixels = read_image(PICTURE, width=32, height=32, colour="rgb").pixels
    given = Predictor.open(bundle).predict(pixels[None])
    assert list(given) == list(expected)
    for output, values in expected.items():
        np.testing.assert_allclose(given[output], values[7:8], atol=2e-4)
    reading = read_outputs(bundle.manifest, given)
    assert [guess.index for guess in reading.top] == [plain[7].argmax()]
    assert list(reading.outputs) == list(expected)
