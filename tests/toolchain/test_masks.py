"""The first masks against what their paper, their oracle or their formula says."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgemask.blocks import FORWARD_BITS, INVERSE_BITS, requantised
from edgemask.masks.bit_depth import BitDepth
from edgemask.masks.jpeg import Jpeg, _tables
from edgemask.masks.median import Median
from edgemask.masks.noise import Noise
from edgemask.masks.thermometer import Thermometer
from edgemask.ops.numpy import NumpyOps

from .harness import Array, stepped
from .mask_trials import EDGES, PICTURES, SEED, SMALL, entropy_for
from .pictures import GRAY, RGB, Pixels, cropped, load


def by_pillow(pixels: Pixels, quality: int, subsampling: str) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).reshape(pixels.shape)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", [1, 25, 50, 75, 95, 100])
@pytest.mark.parametrize("name", RGB + GRAY)
def test_jpeg_is_pillows(name: str, quality: int, subsampling: str) -> None:
    """Pillow rounds the planes of YCbCr to whole numbers on both ways, which Jpeg does not: hence the difference."""
    pixels = load(name)
    ours = stepped(Jpeg(quality, subsampling), pixels[None])[0]  # type: ignore[arg-type]
    theirs = by_pillow(pixels, quality, subsampling).astype(float)
    assert np.abs(ours - theirs).mean() <= 1.2
    assert np.abs(ours - pixels).mean() == pytest.approx(np.abs(theirs - pixels).mean(), abs=0.5)


@pytest.mark.parametrize("planes", [(0,), (0, 1, 2), (1, 2)])
def test_jpegs_forward_sums_are_exact_in_float32(planes: tuple[int, ...]) -> None:
    """The worst case: the bound on every partial sum, in units of the last bit, for any pixels."""
    pixel_units = 4 if planes == (1, 2) else 1
    for channels in (1, 3) if planes == (0,) else (3,):
        forward = _tables(75, channels, planes)[0].astype(np.float64)
        np.testing.assert_array_equal(forward * 2**FORWARD_BITS, np.rint(forward * 2**FORWARD_BITS))
        assert np.abs(forward).sum(0).max() * 2**FORWARD_BITS * 128 * pixel_units <= 2**24


@pytest.mark.parametrize("planes", [(0,), (0, 1, 2), (1, 2)])
def test_jpegs_inverse_sums_are_exact_in_float32(planes: tuple[int, ...]) -> None:
    """Cauchy and Schwarz: a plane's coefficients have norm 8 * 128 and half a step each for having been rounded."""
    for quality in range(1, 101):
        _, inverse, steps = _tables(quality, 3, planes)
        per_level = inverse.astype(np.float64) * 2**INVERSE_BITS
        np.testing.assert_array_equal(per_level, np.rint(per_level))
        bound = np.zeros(inverse.shape[1])
        for plane in range(len(planes)):
            rows = slice(64 * plane, 64 * (plane + 1))
            step = steps[rows, None].astype(np.float64)
            bound += np.linalg.norm(per_level[rows] / step, axis=0) * (8 * 128 + np.linalg.norm(step) * (0.5 + 2**-9))
        assert bound.max() <= 2**24


@pytest.mark.parametrize("channels", [1, 3])
def test_two_products_of_half_the_size_give_what_whole_blocks_give(channels: int) -> None:
    pixels = cropped("cat.png", 40, 56)[..., :channels]
    forward, inverse, steps = (t.astype(np.float64) for t in _tables(60, channels, tuple(range(channels))))
    expected = np.empty(pixels.shape)
    for top in range(0, 40, 8):
        for left in range(0, 56, 8):
            block = np.s_[top : top + 8, left : left + 8]
            levels = np.floor((pixels[block].ravel() - 128.0) @ forward / steps + 0.5 + 2**-9)
            expected[block] = (levels @ inverse).reshape(8, 8, channels)
    given = requantised(NumpyOps(), pixels[None], 128.0, _tables(60, channels, tuple(range(channels))))
    np.testing.assert_array_equal(given[0], expected)


class CheckedOps(NumpyOps):
    """Asserts of every matrix product that float32 holds it exactly, whatever the order of summation."""

    def matmul(self, x: Array, weights: NDArray[np.float32]) -> Array:
        y = super().matmul(x, weights)
        np.testing.assert_array_equal(y, x.astype(np.float64) @ weights.astype(np.float64))
        np.testing.assert_array_equal(y, super().matmul(x[..., ::-1], weights[::-1]))
        return y


EXTREMES = np.random.default_rng(7).choice(np.array([0, 255], np.uint8), (1, 64, 64, 3))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 11])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_products_are_exact_at_every_quality(channels: int, subsampling: str, every: int) -> None:
    noise = np.random.default_rng(8).integers(0, 256, EXTREMES.shape, np.uint8)
    basis = np.where(_tables(75, 1, (0,))[0].T.reshape(1, 64, 8, 8, 1) > 0, 255, 0)
    worst = basis.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(1, 64, 64, 1).repeat(3, 3).astype(np.uint8)
    frames = np.concatenate([EXTREMES, noise, worst, 255 - worst])[..., :channels]
    for quality in range(1, 101, every):
        Jpeg(quality, subsampling).build(CheckedOps(), frames, None)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(frame=EDGES, quality=st.integers(1, 100), subsampling=st.sampled_from(["4:4:4", "4:2:0"]))
def test_jpeg_of_extremes_is_the_same_on_every_engine(frame: Array, quality: int, subsampling: str) -> None:
    mask = Jpeg(quality, subsampling)  # type: ignore[arg-type]
    expected = stepped(mask, frame)
    for interpreter in ("onnx-13", "tflite"):
        np.testing.assert_array_equal(stepped(mask, frame, None, interpreter), expected)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_jpeg_keeps_gray_gray(subsampling: str) -> None:
    gray = cropped("grass.png", 91, 113)[None]
    colour = stepped(Jpeg(30, subsampling), gray.repeat(3, axis=3))  # type: ignore[arg-type]
    np.testing.assert_array_equal(colour, stepped(Jpeg(30), gray).repeat(3, axis=3))


@pytest.mark.parametrize("picture", PICTURES)
def test_median_is_scipys(picture: str) -> None:
    pixels = PICTURES[picture]
    expected = scipy.ndimage.median_filter(pixels, size=(3, 3, 1), mode="nearest")
    np.testing.assert_array_equal(stepped(Median(), pixels[None])[0], expected)


@settings(max_examples=50, deadline=None)
@given(frame=SMALL)
def test_median_of_small_frames_is_scipys(frame: Array) -> None:
    expected = scipy.ndimage.median_filter(frame[0], size=(3, 3, 1), mode="nearest")
    np.testing.assert_array_equal(stepped(Median(), frame)[0], expected)


EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.mark.parametrize("bits", range(1, 8))
def test_bit_depth_is_xus_formula(bits: int) -> None:
    """Xu, Evans and Qi 2018, section 4.1: round(x * (2**i - 1)) / (2**i - 1) with x in 0..1."""
    x = EVERY_VALUE / 255
    expected = np.rint(np.rint(x * (2**bits - 1)) / (2**bits - 1) * 255)
    np.testing.assert_array_equal(stepped(BitDepth(bits), EVERY_VALUE), expected)
    assert len(np.unique(expected)) == 2**bits


@given(bits=st.integers(1, 7), frame=SMALL)
@settings(max_examples=50, deadline=None)
def test_bit_depth_twice_is_bit_depth_once(bits: int, frame: Array) -> None:
    once = stepped(BitDepth(bits), frame)
    np.testing.assert_array_equal(stepped(BitDepth(bits), once.astype(np.uint8)), once)


@pytest.mark.parametrize("levels", [2, 3, 16, 63, 64])
def test_thermometer_is_its_formula(levels: int) -> None:
    code = stepped(Thermometer(levels), EVERY_VALUE).reshape(256, levels)
    for value in range(256):
        reached = [value >= math.floor((k + 1) * 256 / (levels + 1)) for k in range(levels)]
        np.testing.assert_array_equal(code[value], reached)


@settings(max_examples=25, deadline=None)
@given(frame=SMALL, levels=st.integers(2, 64))
def test_thermometer_fills_each_colours_channels_from_below(frame: Array, levels: int) -> None:
    code = stepped(Thermometer(levels), frame)
    *shape, channels = frame.shape
    columns = code.reshape(*shape, channels, levels)
    assert (np.diff(columns, axis=-1) <= 0).all()
    order = np.argsort(frame, axis=None, kind="stable")
    assert (np.diff(columns.sum(-1).ravel()[order]) >= 0).all()


MIDDLE = np.full((1, 224, 224, 3), 128, np.uint8)


def noise_of(mask: Noise, seed: bytes = SEED) -> Array:
    return (stepped(mask, MIDDLE, entropy_for(mask, MIDDLE, seed)) - 128).ravel()


def test_gaussian_noise_adds_four_planes_of_bytes() -> None:
    """Byte i of each of the four planes goes to value i of the frame."""
    mask, frame = Noise("gaussian", 10), np.full((1, 2, 3, 1), 100, np.uint8)
    planes = np.random.default_rng(3).integers(0, 256, (4, 6), np.uint8)
    deviation = math.sqrt(4 * (256**2 - 1) / 12)
    expected = 100 + np.floor((planes.sum(0) - 510.0) * 10 / deviation + 0.5 + 2**-9)
    np.testing.assert_array_equal(stepped(mask, frame, planes.reshape(1, 24)).ravel(), expected)


def test_uniform_noise_scales_one_byte_a_value() -> None:
    frame, entropy = np.full((1, 16, 16, 1), 100, np.uint8), np.arange(256, dtype=np.uint8)[None]
    expected = 100 + np.floor((np.arange(256) - 127.5) * 20 / 127.5 + 0.5 + 2**-9)
    np.testing.assert_array_equal(stepped(Noise("uniform", 20), frame, entropy).ravel(), expected)


@pytest.mark.parametrize("strength", [2.0, 8.0, 30.0])
def test_gaussian_noise_has_its_strength_as_deviation(strength: float) -> None:
    noise = noise_of(Noise("gaussian", strength))
    assert noise.mean() == pytest.approx(0, abs=5 * strength / math.sqrt(noise.size))
    assert noise.std() == pytest.approx(math.sqrt(strength**2 + 1 / 12), rel=0.01)
    assert np.abs(noise).max() <= math.ceil(3.46 * strength)
    assert scipy.stats.skew(noise) == pytest.approx(0, abs=0.02)
    assert scipy.stats.kurtosis(noise) == pytest.approx(-0.3, abs=0.05)


@pytest.mark.parametrize("strength", [2, 8, 30])
def test_uniform_noise_reaches_its_strength_evenly(strength: int) -> None:
    noise = noise_of(Noise("uniform", strength))
    values, counts = np.unique(noise, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-strength, strength + 1))
    assert noise.mean() == pytest.approx(0, abs=5 * strength / math.sqrt(3 * noise.size))
    bytes_each = np.bincount(np.floor((np.arange(256) - 127.5) * strength / 127.5 + 0.5).astype(int) + strength)
    assert scipy.stats.chisquare(counts, bytes_each / 256 * noise.size).pvalue > 1e-4


@pytest.mark.parametrize("distribution", ["gaussian", "uniform"])
def test_noise_is_a_function_of_its_entropy(distribution: str) -> None:
    mask = Noise(distribution)  # type: ignore[arg-type]
    np.testing.assert_array_equal(noise_of(mask), noise_of(mask))
    assert (noise_of(mask) != noise_of(mask, bytes(32))).mean() > 0.8


@settings(max_examples=25, deadline=None)
@given(frame=SMALL, strength=st.floats(0.5, 64), seed=st.binary(min_size=32, max_size=32))
def test_noise_stays_within_the_pixels(frame: Array, strength: float, seed: bytes) -> None:
    mask = Noise("uniform", strength)
    y = stepped(mask, frame, entropy_for(mask, frame, seed))
    assert np.abs(y - frame).max() <= math.ceil(strength)
