"""Ensembles around real models, against plain numpy around the trained model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
from PIL import Image

import edgemask
from edgemask.chain import resolve
from edgemask.ensembles.random_crop import RandomCropEnsemble
from edgemask.errors import UserError
from edgemask.ops.numpy import NumpyOps
from edgemask.spec import Spec
from edgemask_runtime.engines import TensorInfo
from edgemask_runtime.entropy import expand

from .files import EXPECTS, FOLDER, SCORES, baked_answer, chain_of, expected_of, model_of, probabilities
from .harness import Array
from .mask_trials import SEED
from .pictures import cropped, fashion

FRAME = Spec.image(32, 32, "rgb")
IMAGE = TensorInfo("image", "float32", (None, 3, 32, 32))
MODELS = ["torch_nchw.onnx", "tf2onnx_nhwc.onnx", "keras_float.tflite", "keras_int8.tflite"]


def seen(step: RandomCropEnsemble, frames: Array, entropy: Array) -> list[Array]:
    """What the model is asked about: the whole frame, then the crops."""
    asked: list[Array] = []

    def rest(x: Array) -> dict[str, Array]:
        asked.append(x)
        return {"scores": np.zeros((len(x), 2), np.float32)}

    step.build(NumpyOps(), frames, rest, entropy)
    return asked


def places(entropy: Array, free: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Top and left of each crop of one sample: two 24-bit words a crop, lowest byte first."""
    for crop in entropy.reshape(-1, 2, 3):
        top, left = (int.from_bytes(word.tobytes(), "little") for word in crop)
        yield top * (free[0] + 1) // 2**24, left * (free[1] + 1) // 2**24


def enlarged(pixels: Array, height: int, width: int) -> Array:
    """Pillow's bilinear on float planes: for enlarging, linear with half-pixel centres."""
    planes = [Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes], -1)


@pytest.mark.parametrize(("height", "width", "crop"), [(224, 224, 0.4), (91, 113, 0.7), (40, 30, 1.0), (1, 1, 0.1)])
def test_crops_are_pillows(height: int, width: int, crop: float) -> None:
    pixels, step = cropped("coffee.png", height, width), RandomCropEnsemble(votes=5, crop=crop)
    tall, wide = max(1, round(height * crop)), max(1, round(width * crop))
    entropy = expand(SEED, 5 * 6)[None]
    whole, *crops = seen(step, pixels[None], entropy)
    np.testing.assert_array_equal(whole[0], pixels)
    found = list(places(entropy, (height - tall, width - wide)))
    assert len(crops) == len(found) == 5
    for (top, left), given in zip(found, crops, strict=True):
        expected = enlarged(pixels[top : top + tall, left : left + wide], height, width)
        assert np.abs(given[0] - expected).max() <= 0.51
        np.testing.assert_array_equal(given, np.rint(given))


def test_places_are_even() -> None:
    """30 crops of 22 from 56: 35 places each way, free of each other."""
    step, draws = RandomCropEnsemble(), 100
    ramp = np.zeros((draws, 56, 56, 2), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(56)[:, None], np.arange(56)
    crops = seen(step, ramp, expand(SEED, draws * 180).reshape(draws, 180))[1:]
    corners = np.concatenate([crop[:, 0, 0].astype(int) for crop in crops])
    assert corners.shape == (3000, 2)
    for axis in range(2):
        counts = np.bincount(corners[:, axis], minlength=35)
        assert len(counts) == 35
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert scipy.stats.pearsonr(*corners.T).pvalue > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_it_adds_the_mean_of_the_crops_answers(name: str) -> None:
    model, frames = model_of(name), np.stack(fashion())
    step = RandomCropEnsemble(votes=4, crop=0.75, scores=SCORES[name])  # type: ignore[arg-type]
    chain = chain_of(model, FRAME, [step, *EXPECTS[name]])
    entropy = expand(SEED, 24 * len(frames)).reshape(len(frames), 24)
    baked = model.graft(chain, "{}")
    answer = baked_answer(model, baked, {"frame": frames, "entropy": entropy})
    votes = [probabilities(name, crop.astype(np.uint8)) for crop in seen(step, frames, entropy)[1:]]
    np.testing.assert_allclose(answer.pop("ensemble_scores"), np.mean(votes, 0), atol=2e-5)
    plain = chain_of(model, FRAME, EXPECTS[name])
    for output, value in expected_of(plain, model, frames).items():
        np.testing.assert_allclose(answer[output], value, atol=2e-4)


@pytest.mark.parametrize("name", ["torch_nchw.onnx", "keras_float.tflite"])
def test_it_bakes_with_parity_and_is_no_mask(name: str, tmp_path: Path) -> None:
    text = f"random-crop-ensemble:votes=3,crop=0.8,scores={SCORES[name]}"
    baked = edgemask.bake(FOLDER / name, tmp_path / name, masks=[text])
    assert baked.parity.passed
    assert baked.parity.replays is True
    assert not baked.proof.masked


def test_what_follows_reads_the_mean_by_its_name() -> None:
    outputs = ("ensemble_scores", "logits")
    logits = TensorInfo("logits", "float32", (None, 10))
    chain = resolve(FRAME, [RandomCropEnsemble(), *EXPECTS["torch_nchw.onnx"]], [IMAGE], [logits])
    assert tuple(chain.outputs) == outputs
    assert chain.outputs["ensemble_scores"].shape == (None, 10)
    assert chain.entropy_bytes == 30 * 6


@pytest.mark.parametrize("shape", [(1,), (1, 4, 5)])
def test_it_averages_rows_of_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"step 1 \(random-crop-ensemble\) averages rows of scores, gets none"):
        resolve(FRAME, [RandomCropEnsemble()], [IMAGE], [TensorInfo("boxes", "float32", shape)])
