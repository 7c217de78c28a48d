"""The low-pass filter against scipy's DCT, and that its sums are exact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from edgemask.masks.low_pass import FRACTION, LARGEST, LowPass, _resampling
from edgemask.ops.numpy import NumpyOps

from ..harness import Array, stepped
from ..pictures import GRAY, RGB, cropped

KEPT = (0.05, 0.25, 0.5, 0.95)


def by_scipy(pixels: Array, keep: float) -> Array:
    """The whole frame's DCT, all but the lowest rows and columns zero."""
    coefficients = scipy.fft.dctn(pixels.astype(float), axes=(0, 1), norm="ortho")
    height, width = (max(1, round(keep * size)) for size in pixels.shape[:2])
    coefficients[height:] = 0
    coefficients[:, width:] = 0
    return np.clip(np.rint(scipy.fft.idctn(coefficients, axes=(0, 1), norm="ortho")), 0, 255)


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("name", RGB + GRAY)
def test_it_is_scipys_dct_without_the_high_frequencies(name: str, keep: float) -> None:
    pixels = cropped(name, 91, 113)
    difference = np.abs(stepped(LowPass(keep), pixels[None])[0] - by_scipy(pixels, keep))
    assert difference.max() <= 1
    assert difference.mean() <= 0.15


@pytest.mark.parametrize("size", [1, 2, 7, 33, 224, 640])
def test_the_sums_are_exact_in_float32_and_keep_flat_areas(size: int) -> None:
    for keep in KEPT:
        for table in _resampling(size, max(1, round(keep * size))):
            whole = table.astype(np.float64) * 2**13
            np.testing.assert_array_equal(whole, np.rint(whole))
            np.testing.assert_array_equal(whole.sum(1), 2**13)
            unit = np.gcd.reduce(whole.astype(int).ravel())
            assert np.abs(whole / unit).sum(1).max() * LARGEST * FRACTION <= 2**24


class CheckedOps(NumpyOps):
    """Asserts of every product that float32 holds it exactly."""

    def matmul(self, x: Array, weights: NDArray[np.float32]) -> Array:
        y = super().matmul(x, weights)
        np.testing.assert_array_equal(y, x.astype(np.float64) @ weights.astype(np.float64))
        return y

    def batch_matmul(self, x: Array, y: Array) -> Array:
        z = super().batch_matmul(x, y)
        np.testing.assert_array_equal(z, np.matmul(x.astype(np.float64), y.astype(np.float64)))
        return z


@pytest.mark.parametrize("keep", KEPT)
def test_the_products_are_exact_for_the_frames_that_reach_furthest(keep: float) -> None:
    """White where a pixel's own kernel is positive, black elsewhere; and noise of black and white."""
    down = _resampling(64, max(1, round(keep * 64)))[0]
    signs = np.stack([np.outer(row, row) > 0 for row in down[:: max(1, len(down) // 8)]])[..., None]
    noise = np.random.default_rng(5).integers(0, 2, (4, 64, 64, 1)) > 0
    frames = np.concatenate([signs, noise]).astype(np.uint8) * np.uint8(255)
    y = LowPass(keep).build(CheckedOps(), frames, None)
    assert 0 <= y.min() <= y.max() <= 255


def test_flat_frames_stay() -> None:
    flat = np.broadcast_to(np.arange(0, 256, 15, np.uint8)[:, None, None, None], (18, 37, 50, 3))
    np.testing.assert_array_equal(stepped(LowPass(0.3), flat), flat)
