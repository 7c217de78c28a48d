"""All sizes of the median against scipy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings

from edgemask.masks.median import Median

from ..harness import Array, stepped
from ..mask_trials import PICTURES, SMALL

SIZES = (2, 3, 5)


def by_scipy(frame: Array, size: int) -> Array:
    return np.asarray(scipy.ndimage.median_filter(frame, size=(1, size, size, 1), mode="nearest"))


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_median_is_scipys(size: int, picture: str) -> None:
    frame = PICTURES[picture][None]
    np.testing.assert_array_equal(stepped(Median(size), frame), by_scipy(frame, size))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(frame=SMALL)
@pytest.mark.parametrize("size", SIZES)
def test_median_of_small_frames_is_scipys(size: int, frame: Array) -> None:
    np.testing.assert_array_equal(stepped(Median(size), frame), by_scipy(frame, size))  # type: ignore[arg-type]


def test_the_median_of_25_holds_for_every_pattern_that_sorted_columns_can_have() -> None:
    """By Knuth's 0-1 principle: columns of 0 and 1 are their number of ones, so 6**5 windows are all there are."""
    ones = np.array(list(itertools.product(range(6), repeat=5)))
    windows = (np.arange(5)[None, :, None] >= 5 - ones[:, None, :]).astype(np.uint8)[..., None]
    middle = stepped(Median(5), windows)[:, 2, 2, 0]
    np.testing.assert_array_equal(middle, ones.sum(1) >= 13)
