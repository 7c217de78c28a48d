"""Total variation: the steps against their paper's in float64, their aim against another algorithm's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask.masks.pixel_drop import PixelDrop
from edgemask.masks.total_variation import TotalVariation

from ..harness import Array, stepped
from ..mask_trials import SMALL, entropy_for
from ..pictures import cropped

COFFEE = cropped("coffee.png", 40, 56)
EVERY_BYTE = np.arange(256, dtype=np.uint8)


def gradient(z: Array) -> Array:
    right, down = np.zeros_like(z), np.zeros_like(z)
    right[:, :-1], down[:-1] = z[:, 1:] - z[:, :-1], z[1:] - z[:-1]
    return np.stack([right, down])


def divergence(p: Array) -> Array:
    d = p.sum(0)
    d[:, 1:] -= p[0, :, :-1]
    d[1:] -= p[1, :-1]
    return d


def energy(z: Array, x: Array, keep: Array, weight: float) -> float:
    return float(((keep * (z - x)) ** 2).sum() / 2 + weight * np.sqrt((gradient(z) ** 2).sum(0)).sum())


def by_chambolle_and_pock(x: Array, keep: Array, start: Array, weight: float, iterations: int) -> Array:
    """Chambolle and Pock 2011, algorithm 1 with theta = 1, as they state it for TV (section 6.2)."""
    tau, sigma, z, ahead = 0.25, 0.5, start, start
    p = np.zeros((2, *x.shape))
    for _ in range(iterations):
        p = p + sigma * gradient(ahead)
        p = p / np.maximum(1, np.sqrt((p**2).sum(0)) / weight)
        moved = z + tau * divergence(p)
        new = np.where(keep, (moved + tau * x) / (1 + tau), moved)
        z, ahead = new, 2 * new - z
    return z


def by_chambolle(x: Array, weight: float, iterations: int) -> Array:
    """Chambolle 2004, the dual projection: another way to the same least."""
    p = np.zeros((2, *x.shape))
    for _ in range(iterations):
        slope = gradient(divergence(p) - x / weight)
        p = (p + 0.125 * slope) / (1 + 0.125 * np.sqrt((slope**2).sum(0)))
    return x - weight * divergence(p)


def mean_around(x: Array, keep: Array) -> Array:
    """Value by value."""
    start = x.astype(float)
    for row, column, channel in np.argwhere(~keep):
        near = slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3), channel
        kept = x[near][keep[near]].astype(float)
        start[row, column, channel] = (kept.sum() + 2) / (kept.size + 1 / 64)
    return start


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mask", [TotalVariation(), TotalVariation(32.0, 5), TotalVariation(1.0, 50)])
def test_total_variation_takes_the_papers_steps(mask: TotalVariation, channels: int) -> None:
    x = COFFEE[..., :channels].astype(float)
    expected = by_chambolle_and_pock(x, np.full(x.shape, True), x, mask.weight, mask.iterations)
    assert np.abs(stepped(mask, COFFEE[None, ..., :channels])[0] - np.clip(expected, 0, 255)).max() <= 0.5 + 2**-8


@pytest.mark.parametrize("weight", [2.0, 7.65])
def test_total_variation_comes_close_to_the_least(weight: float) -> None:
    least = by_chambolle(COFFEE.astype(float), weight, 2000)
    given = stepped(TotalVariation(weight), COFFEE[None])[0]
    assert np.abs(given - least).mean() < 0.4
    assert np.abs(COFFEE - least).mean() > 3 * np.abs(given - least).mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (2, 2)])
def test_total_variation_of_thin_frames(shape: tuple[int, int]) -> None:
    x = cropped("cat.png", *shape)
    expected = by_chambolle_and_pock(x.astype(float), np.full(x.shape, True), x.astype(float), 7.65, 30)
    assert np.abs(stepped(TotalVariation(), x[None])[0] - expected).max() <= 0.5 + 2**-8


@pytest.mark.parametrize("mask", [PixelDrop(), PixelDrop(0.8, 20.0, 10)])
def test_pixel_drop_takes_the_papers_steps(mask: PixelDrop) -> None:
    entropy = entropy_for(mask, COFFEE[None])
    assert entropy is not None
    keep = (entropy >= round(mask.probability * 256)).reshape(COFFEE.shape)
    x = COFFEE.astype(float)
    expected = by_chambolle_and_pock(x, keep, mean_around(x, keep), mask.weight, mask.iterations)
    assert np.abs(stepped(mask, COFFEE[None], entropy)[0] - np.clip(expected, 0, 255)).max() <= 0.5 + 2**-8


def test_pixel_drop_comes_closer_to_the_least_with_every_step() -> None:
    entropy, x = entropy_for(PixelDrop(), COFFEE[None]), COFFEE.astype(float)
    assert entropy is not None
    keep = (entropy >= 128).reshape(x.shape)
    least = energy(by_chambolle_and_pock(x, keep, mean_around(x, keep), 7.65, 1000), x, keep, 7.65)
    above = [
        energy(stepped(PixelDrop(iterations=steps), COFFEE[None], entropy)[0], x, keep, 7.65) / least - 1
        for steps in (5, 10, 20, 50)
    ]
    assert above == sorted(above, reverse=True)
    assert above[-1] < 0.02


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_pixel_drop_drops_with_its_probability(probability: float) -> None:
    """A value that is dropped, and no other, leaves no trace: found by changing it."""
    bytes_ = np.random.default_rng(2).permutation(EVERY_BYTE)
    frame = np.random.default_rng(3).integers(0, 256, (1, 16, 16, 1), np.uint8)
    mask = PixelDrop(probability, 1.0, 5)
    dropped = (bytes_ < round(probability * 256)).reshape(frame.shape)
    assert dropped.mean() == pytest.approx(probability, abs=1 / 512)
    before = stepped(mask, frame, bytes_[None])
    np.testing.assert_array_equal(stepped(mask, np.where(dropped, 255 - frame, frame), bytes_[None]), before)
    for at in np.argwhere(~dropped)[::16]:
        changed = frame.copy()
        changed[tuple(at)] ^= 128
        assert (stepped(mask, changed, bytes_[None]) != before).any()


@settings(max_examples=25, deadline=None)
@given(frame=SMALL, weight=st.floats(1, 64), shift=st.integers(1, 254))
def test_smoothing_keeps_what_is_even(frame: Array, weight: float, shift: int) -> None:
    even = np.full_like(frame, shift)
    np.testing.assert_array_equal(stepped(TotalVariation(weight), even), even)
