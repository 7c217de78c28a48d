"""Non-local means against the formula, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask.masks.non_local_means import NonLocalMeans

from ..harness import Array, stepped
from ..mask_trials import SMALL
from ..pictures import cropped


def by_loops(pixels: Array, reach: int, half: int, strength: float) -> Array:
    """Buades, Coll and Morel 2005: every pixel of the window, weighed by its patch's distance; in float64."""
    height, width, _ = pixels.shape
    margin = reach + half
    x = np.pad(pixels.astype(float), ((margin, margin), (margin, margin), (0, 0)), "edge")

    def patch_at(row: int, column: int) -> Array:
        return x[row - half : row + half + 1, column - half : column + half + 1]

    y = np.zeros(pixels.shape)
    for row, column in np.ndindex(height, width):
        at, total = (row + margin, column + margin), 0.0
        for down, right in np.ndindex(2 * reach + 1, 2 * reach + 1):
            there = at[0] + down - reach, at[1] + right - reach
            weight = np.exp(-((patch_at(*at) - patch_at(*there)) ** 2).mean() / strength**2)
            y[row, column] += weight * x[there]
            total += weight
        y[row, column] /= total
    return y


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("coffee.png", NonLocalMeans()),
        ("cat.png", NonLocalMeans(6, 1, 2.0)),
        ("rocket.jpg", NonLocalMeans(3, 2, 20.0)),
        ("grass.png", NonLocalMeans(1, 1, 32.0)),
    ],
)
def test_it_is_the_papers_formula(name: str, mask: NonLocalMeans) -> None:
    pixels = cropped(name, 9, 14)
    expected = by_loops(pixels, mask.search_radius, mask.patch_radius, mask.strength)
    assert np.abs(expected - pixels).max() > 1
    assert np.abs(stepped(mask, pixels[None])[0] - expected).max() <= 0.5 + 2**-8


def test_it_removes_noise_and_keeps_an_edge() -> None:
    clean = np.where(np.arange(48) < 24, 60.0, 190.0)[None, :, None].repeat(48, 0)
    noisy = np.clip(clean + np.random.default_rng(5).normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    y = stepped(NonLocalMeans(strength=10.0), noisy[None])[0]
    assert np.abs(y - clean).mean() < 0.4 * np.abs(noisy - clean).mean()
    assert np.abs(y[:, 24] - y[:, 23]).min() > 115


@settings(max_examples=25, deadline=None)
@given(frame=SMALL, strength=st.floats(1, 32))
def test_it_averages_what_is_there(frame: Array, strength: float) -> None:
    y = stepped(NonLocalMeans(3, 1, strength), frame)
    assert (y >= frame.min((1, 2))).all()
    assert (y <= frame.max((1, 2))).all()
