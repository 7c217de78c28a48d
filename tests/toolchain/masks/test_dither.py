"""Dithering against its formula in whole numbers, Bayer's printed matrix and what blue noise means."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask.dither import bayer, void_and_cluster
from edgemask.masks.blue_noise_dither import BlueNoiseDither
from edgemask.masks.ordered_dither import OrderedDither

from ..harness import Array, stepped
from ..mask_trials import SMALL
from ..pictures import cropped

BAYER_4 = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
"""As textbooks print it."""


def by_the_formula(frame: Array, levels: int, side: int) -> Array:
    """floor(x (levels - 1) / 255 + (rank + 1/2) / side**2), in integers, one pixel after the other."""
    ranks = bayer(side)
    _, height, width, _ = frame.shape
    at = np.array([[ranks[y % side, x % side] for x in range(width)] for y in range(height)])[:, :, None]
    level = (frame.astype(np.int64) * (levels - 1) * 2 * side**2 + 255 * (2 * at + 1)) // (255 * 2 * side**2)
    return np.floor(level * 255 / (levels - 1) + 0.5 + 1e-9)


def test_bayers_matrix_is_bayers() -> None:
    np.testing.assert_array_equal(bayer(4), BAYER_4)
    np.testing.assert_array_equal(np.sort(bayer(8).ravel()), np.arange(64))


@settings(max_examples=60, deadline=None)
@given(frame=SMALL, levels=st.integers(2, 64), side=st.sampled_from([2, 4, 8]))
def test_ordered_dithering_is_its_formula(frame: Array, levels: int, side: int) -> None:
    mask = OrderedDither(levels, side)  # type: ignore[arg-type]
    expected = by_the_formula(frame, levels, side)
    for interpreter in ("numpy", "onnx-13", "tflite"):
        np.testing.assert_array_equal(stepped(mask, frame, None, interpreter), expected)


@pytest.mark.parametrize("mask", [OrderedDither(2), OrderedDither(4), BlueNoiseDither(2), BlueNoiseDither(4)])
def test_flat_areas_keep_their_mean(mask: OrderedDither | BlueNoiseDither) -> None:
    """To one step of the thresholds: a 64th of a level, or a 128th."""
    flat = np.broadcast_to(np.arange(0, 256, 5, np.uint8)[:, None, None, None], (52, 64, 64, 1))
    means = stepped(mask, flat).mean((1, 2, 3))
    assert np.abs(means - np.arange(0, 256, 5)).max() <= 255 / (mask.levels - 1) / 64
    assert np.abs(means - np.arange(0, 256, 5)).max() > 0


@pytest.mark.parametrize("mask", [OrderedDither(7), BlueNoiseDither(7)])
def test_nothing_but_the_levels_comes_out(mask: OrderedDither | BlueNoiseDither) -> None:
    y = stepped(mask, cropped("coffee.png", 70, 90)[None])
    np.testing.assert_array_equal(np.unique(y), np.floor(np.arange(7) * 255 / 6 + 0.5))


def spectrum(lit: Array) -> Array:
    """Mean power by distance from the origin of the frequencies, the mean left out."""
    power = np.abs(np.fft.fft2(lit - lit.mean())) ** 2
    distance = np.hypot(*np.meshgrid(*[np.fft.fftfreq(len(lit), 1 / len(lit))] * 2))
    rings = np.bincount(distance.astype(int).ravel(), power.ravel()) / np.bincount(distance.astype(int).ravel())
    return np.asarray(rings / power.mean())


@pytest.mark.parametrize("share", [1 / 16, 1 / 8, 1 / 4, 1 / 2])
def test_blue_noise_has_no_low_frequencies(share: float) -> None:
    """White noise has 1 at every frequency; blue noise little below half its principal one (Ulichney 1988)."""
    ranks = void_and_cluster()
    rings = spectrum((ranks < share * ranks.size).astype(float))
    principal = len(ranks) * min(np.sqrt(share), 0.5)
    assert rings[1 : int(principal / 2) + 1].max() < 0.35
    assert rings[int(principal / 2) + 1 :].max() > 1.5


def test_blue_noise_is_a_permutation_and_the_same_everywhere() -> None:
    ranks = void_and_cluster()
    np.testing.assert_array_equal(np.sort(ranks.ravel()), np.arange(32 * 32))
    assert hashlib.sha256(ranks.astype("<i8").tobytes()).hexdigest()[:16] == "07577eceb87c6bf6"
