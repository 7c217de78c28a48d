"""Random scale and shift of the channels against plain arithmetic."""

from __future__ import annotations

import numpy as np
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask.masks.random_colour import RandomColour
from edgemask_runtime.entropy import expand

from ..harness import Array, stepped
from ..mask_trials import SEED, SMALL

EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def drawn(plane: Array, most: int) -> Array:
    """The formula in whole numbers; `plane` holds the lowest bytes of all draws, then the middle, then the highest."""
    low, middle, high = (part.astype(int) for part in np.split(plane, 3))
    return (low + 256 * middle + 65536 * high) * (2 * most + 1) // 2**24 - most


@settings(max_examples=50, deadline=None)
@given(frame=SMALL, scale=st.floats(0, 0.5), shift=st.integers(0, 64), seed=st.binary(min_size=32, max_size=32))
def test_it_is_a_scale_and_a_shift_of_each_channel(frame: Array, scale: float, shift: int, seed: bytes) -> None:
    mask, channels = RandomColour(scale, shift), frame.shape[3]
    entropy = expand(seed, 6 * channels)[None]
    scales = 1 + drawn(entropy[0, : 3 * channels], round(scale * 256)) / 256
    shifts = drawn(entropy[0, 3 * channels :], shift)
    expected = np.clip(np.floor(frame * scales + shifts + 0.5), 0, 255)
    np.testing.assert_array_equal(stepped(mask, frame, entropy), expected)


def test_the_extremes_are_what_the_parameters_say() -> None:
    least, most = np.zeros((1, 6), np.uint8), np.full((1, 6), 255, np.uint8)
    mask, x = RandomColour(0.25, 20), EVERY_VALUE.astype(float)
    np.testing.assert_array_equal(stepped(mask, EVERY_VALUE, least), np.clip(np.floor(x * 0.75 - 20 + 0.5), 0, 255))
    np.testing.assert_array_equal(stepped(mask, EVERY_VALUE, most), np.clip(np.floor(x * 1.25 + 20 + 0.5), 0, 255))


def test_shifts_are_even_and_free_of_each_other() -> None:
    draws = 20_000
    entropy = expand(SEED, 18 * draws).reshape(draws, 18)
    middle = np.full((draws, 1, 1, 3), 100, np.uint8)
    shifts = stepped(RandomColour(0, 4), middle, entropy)[:, 0, 0].astype(int) - 100
    for channel in range(3):
        assert scipy.stats.chisquare(np.bincount(shifts[:, channel] + 4, minlength=9)).pvalue > 1e-3
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 0.03


def test_the_entropy_decides() -> None:
    frame, entropy = np.full((1, 4, 4, 3), 128, np.uint8), expand(SEED, 18)[None]
    y = stepped(RandomColour(), frame, entropy)
    np.testing.assert_array_equal(y, stepped(RandomColour(), frame, entropy))
    assert (y != stepped(RandomColour(), frame, 255 - entropy)).all()
    np.testing.assert_array_equal(y, y[:, :1, :1].repeat(4, 1).repeat(4, 2))
