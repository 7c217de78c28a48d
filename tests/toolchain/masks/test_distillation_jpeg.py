"""Feature distillation against the authors' algorithm in scipy's DCT, and the bounds that make it exact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from edgemask.blocks import FORWARD_BITS, INVERSE_BITS
from edgemask.masks.distillation_jpeg import DistillationJpeg

from ..harness import Array, stepped
from ..pictures import GRAY, RGB, cropped

HALF = 0.5 + 2**-9
"""Exact halves are as frequent as multiples of 1/8 are among the coefficients; rint would send them to even."""


def by_scipy(pixels: Array, step: int = 30, low_step: int = 25) -> Array:
    """Block by block, as Liu et al. publish it; whole numbers at the end."""
    table = np.full((8, 8, 1), float(step))
    table[:4, :4] = low_step
    y = np.zeros(pixels.shape)
    for top in range(0, pixels.shape[0], 8):
        for left in range(0, pixels.shape[1], 8):
            block = np.s_[top : top + 8, left : left + 8]
            coefficients = scipy.fft.dctn(pixels[block].astype(float), axes=(0, 1), norm="ortho")
            levels = np.floor(coefficients / table + HALF)
            y[block] = scipy.fft.idctn(levels * table, axes=(0, 1), norm="ortho")
    return np.clip(np.floor(y + HALF), 0, 255)


@pytest.mark.parametrize("steps", [(30, 25), (1, 1), (255, 10)])
@pytest.mark.parametrize("name", RGB + GRAY)
def test_it_is_the_authors_algorithm(name: str, steps: tuple[int, int]) -> None:
    """What differs are coefficients next to a tie, for our tables hold 11 and 12 bits."""
    pixels = cropped(name, 144, 136)
    ours, theirs = stepped(DistillationJpeg(*steps), pixels[None])[0], by_scipy(pixels, *steps)
    assert (ours != theirs).mean() <= 0.05
    assert np.abs(ours - theirs).mean() <= 0.1


def test_the_sums_are_exact_in_float32() -> None:
    """The worst cases: any pixels forward; backward coefficients of norm 8 * 255 and half a step each (Cauchy)."""
    for step in (1, 2, 30, 255):
        forward, inverse, steps = (t.astype(np.float64) for t in DistillationJpeg(step, step)._tables(3))
        units, per_level = forward * 2**FORWARD_BITS, inverse * 2**INVERSE_BITS
        np.testing.assert_array_equal(units, np.rint(units))
        np.testing.assert_array_equal(per_level, np.rint(per_level))
        assert np.abs(units).sum(0).max() * 255 <= 2**24
        norms = np.linalg.norm(per_level[:64] / steps[:64, None], axis=0)
        assert norms.max() * (8 * 255 + 8 * step * (0.5 + 2**-9)) <= 2**24
