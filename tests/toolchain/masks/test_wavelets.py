"""Wavelet denoising and pixel deflection against their papers, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from edgemask.masks.pixel_deflection import PixelDeflection
from edgemask.masks.wavelet_denoise import WaveletDenoise
from edgemask.ops.numpy import NumpyOps

from ..harness import Array, stepped
from ..mask_trials import entropy_for
from ..pictures import cropped

TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SHAPES = [(64, 48), (91, 113), (1, 1), (1, 9), (7, 2)]


def shrunk(band: Array, noise: float) -> Array:
    """BayesShrink: Chang, Yu and Vetterli 2000."""
    threshold = noise**2 / np.sqrt(max((band**2).mean() - noise**2, 1e-6))
    return np.sign(band) * np.maximum(np.abs(band) - threshold, 0)


def by_haar(plane: Array, noise: float, levels: int) -> Array:
    """Level by level along columns and rows, in float64; odd sizes repeat the edge, as PyWavelets' symmetric mode."""
    if levels == 0:
        return plane
    height, width = plane.shape
    x = np.pad(plane, ((0, height % 2), (0, width % 2)), "edge")
    low, high = (x[::2] + x[1::2]) / np.sqrt(2), (x[::2] - x[1::2]) / np.sqrt(2)
    bands = [(half[:, ::2] + sign * half[:, 1::2]) / np.sqrt(2) for half in (low, high) for sign in (1, -1)]
    low_low, *details = [by_haar(bands[0], noise, levels - 1), *(shrunk(band, noise) for band in bands[1:])]
    y = np.empty_like(x)
    for down, right in np.ndindex(2, 2):
        signs = 1 - 2 * right, 1 - 2 * down, (1 - 2 * right) * (1 - 2 * down)
        y[down::2, right::2] = (low_low + sum(sign * band for sign, band in zip(signs, details, strict=True))) / 2
    return y[:height, :width]


def denoised(pixels: Array, deviation: float, levels: int) -> Array:
    """Plane by plane of YCbCr, for which independent noise of R, G and B adds up."""
    to_planes = TO_YCC if pixels.shape[2] == 3 else np.eye(1)
    planes = pixels @ to_planes.T
    noises = deviation * np.sqrt((to_planes**2).sum(1))
    smooth = np.stack([by_haar(planes[..., i], noise, levels) for i, noise in enumerate(noises)], -1)
    return np.clip(smooth @ np.linalg.inv(to_planes).T, 0, 255)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["coffee.png", "grass.png"])
@pytest.mark.parametrize("mask", [WaveletDenoise(), WaveletDenoise(25.5, 2), WaveletDenoise(2.0, 6)])
def test_wavelet_denoise_is_bayes_shrink(mask: WaveletDenoise, name: str, shape: tuple[int, int]) -> None:
    pixels = cropped(name, *shape)
    expected = denoised(pixels.astype(float), mask.deviation, mask.levels)
    assert np.abs(stepped(mask, pixels[None])[0] - expected).max() <= 0.5 + 2**-8


def test_wavelet_denoise_removes_noise() -> None:
    clean = np.where(np.arange(64) < 32, 60.0, 190.0)[None, :, None].repeat(64, 0)
    noisy = np.clip(clean + np.random.default_rng(5).normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    y = stepped(WaveletDenoise(10.0), noisy[None])[0]
    assert np.abs(y - clean).mean() < 0.3 * np.abs(noisy - clean).mean()


def drawn(entropy: Array, limits: list[Array | int]) -> list[Array]:
    """Four numbers a deflection, each of three bytes, the lowest first: floor(bytes * limit / 2**24)."""
    planes = entropy.reshape(4, 3, -1).astype(np.int64)
    return [((b[0] + 256 * b[1] + 65536 * b[2]) * limit) >> 24 for b, limit in zip(planes, limits, strict=False)]


def by_loop(pixels: Array, entropy: Array, window: int) -> tuple[Array, Array, Array]:
    """The frame with its pixels deflected one by one; where to and where from."""
    height, width, _ = pixels.shape
    rows, columns = drawn(entropy, [height, width])
    tops, lefts = np.maximum(rows - window, 0), np.maximum(columns - window, 0)
    spans = [np.minimum(rows + window, height - 1) - tops + 1, np.minimum(columns + window, width - 1) - lefts + 1]
    _, _, down, right = drawn(entropy, [height, width, *spans])
    target, source = np.stack([rows, columns], 1), np.stack([tops + down, lefts + right], 1)
    y = pixels.copy()
    for (row, column), (from_row, from_column) in zip(target, source, strict=True):
        y[row, column] = pixels[from_row, from_column]
    return y, target, source


def deflected(mask: PixelDeflection, pixels: Array, entropy: Array) -> Array:
    return np.asarray(mask.deflected(NumpyOps(), pixels[None].astype(np.float32), entropy)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 100, 1000])
def test_pixel_deflection_moves_one_pixel_after_the_other(count: int, shape: tuple[int, int]) -> None:
    """On small frames many hit the same pixel: the last wins."""
    mask, pixels = PixelDeflection(count), cropped("coffee.png", *shape)
    entropy = entropy_for(mask, pixels[None])
    assert entropy is not None
    expected = by_loop(pixels, entropy, mask.window)[0]
    np.testing.assert_array_equal(deflected(mask, pixels, entropy), expected)


@pytest.mark.parametrize("name", ["coffee.png", "grass.png"])
def test_pixel_deflection_denoises_what_it_moved(name: str) -> None:
    mask, pixels = PixelDeflection(200), cropped(name, 90, 70)
    entropy = entropy_for(mask, pixels[None])
    assert entropy is not None
    expected = denoised(by_loop(pixels, entropy, 10)[0].astype(float), mask.deviation, mask.levels)
    assert np.abs(stepped(mask, pixels[None], entropy)[0] - expected).max() <= 0.5 + 2**-8


def test_pixel_deflection_draws_pixels_and_neighbours_evenly() -> None:
    """Each pixel of a ramp names itself, so that the frame itself tells who went where."""
    height, width, window = 24, 40, 3
    names = np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
    mask, targets, steps = PixelDeflection(100, window), [], []
    for seed in range(150):
        entropy = np.random.default_rng(seed).integers(0, 256, (1, 1200), np.uint8)
        y = deflected(mask, names, entropy)[..., 0].astype(int)
        moved = np.argwhere(y != names[..., 0])
        targets.append(moved)
        steps.append(np.stack(np.divmod(y[tuple(moved.T)], width), 1) - moved)
    target, step = np.concatenate(targets), np.concatenate(steps)
    assert np.abs(step).max() == window
    inner = ((target >= window) & (target < [height - window, width - window])).all(1)
    places = np.bincount(target[inner] @ [width, 1], minlength=height * width).reshape(height, width)
    assert scipy.stats.chisquare(places[window:-window, window:-window].ravel()).pvalue > 1e-4
    around = np.bincount((step[inner] + window) @ [7, 1], minlength=49)
    assert around[24] == 0
    assert scipy.stats.chisquare(np.delete(around, 24)).pvalue > 1e-4
