"""Haar wavelets and their shrinking, for the masks that denoise with them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgemask.ops.protocol import Ops, T

_HAAR = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
"""Orthonormal, rows are bands, the low one first; columns are the pixels of a 2 x 2 block, row by row."""

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
"""Rec. ITU-T T.871 (JFIF), clause 7."""

_LEAST_VARIANCE = 1e-6


def wavelets_shrunk(ops: Ops[T], x: T, deviation: float, levels: int) -> T:
    """`x`, float32 H x W x C, without the noise of `deviation`: its Haar details in YCbCr, softly thresholded.

    A band of deviation s gets the threshold deviation**2 / sqrt(s**2 - deviation**2): BayesShrink (Chang, Yu and
    Vetterli 2000). An odd size is extended by its edge, level by level.
    """
    colours = _TO_YCC if ops.shape(x)[2] == 3 else np.eye(ops.shape(x)[2])
    noise = tuple(float(scale) for scale in deviation**2 * (colours**2).sum(1))
    return _level(ops, x, noise, levels, ops.shape(x)[2] == 3)


def _level(ops: Ops[T], x: T, noise: tuple[float, ...], levels: int, in_rgb: bool) -> T:
    """One level and those below it; only the first takes and gives RGB."""
    height, width, channels = ops.shape(x)
    forward, inverse = _tables(channels, in_rgb)
    coefficients = ops.matmul(_split(ops, x), forward)
    low = ops.slice(coefficients, 2, 0, channels)
    details = _shrunk(ops, ops.slice(coefficients, 2, channels, 4 * channels), noise)
    low = _level(ops, low, noise, levels - 1, False) if levels > 1 else low
    return _joined(ops, ops.matmul(ops.concat([low, details], 2), inverse), height, width)


def _shrunk(ops: Ops[T], details: T, noise: tuple[float, ...]) -> T:
    """The three bands of a level, each channel of each with a threshold of its own."""
    height, width, _ = ops.shape(details)
    variance = ops.const(np.array(noise * 3, np.float32).reshape(1, 1, -1))
    # Rows first: sums of a few hundred numbers stay closer to each other, whatever the engine's order.
    squares = ops.reduce_sum(ops.reduce_sum(ops.mul(details, details), 0), 1)
    signal = ops.max(ops.sub(ops.mul(squares, 1 / (height * width)), variance), _LEAST_VARIANCE)
    threshold = ops.div(variance, ops.sqrt(signal))
    return ops.sub(details, ops.min(ops.max(details, ops.mul(threshold, -1.0)), threshold))


@cache
def _tables(channels: int, in_rgb: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A block's 4 C pixels to its 4 C coefficients, band by band, and back."""
    forward = np.kron(_HAAR, _TO_YCC if in_rgb else np.eye(channels)).T
    return forward.astype(np.float32), np.linalg.inv(forward).astype(np.float32)


def _split(ops: Ops[T], x: T) -> T:
    """2 x 2 blocks, each one's pixels as channels."""
    height, width, channels = ops.shape(x)
    if height % 2 or width % 2:
        x = ops.pad(x, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    height, width = (height + 1) // 2, (width + 1) // 2
    x = ops.transpose(ops.reshape(x, (height, 2, width, 2 * channels)), (0, 2, 1, 3))
    return ops.reshape(x, (height, width, 4 * channels))


def _joined(ops: Ops[T], blocks: T, height: int, width: int) -> T:
    rows, columns, size = ops.shape(blocks)
    x = ops.transpose(ops.reshape(blocks, (rows, columns, 2, size // 2)), (0, 2, 1, 3))
    x = ops.reshape(x, (2 * rows, 2 * columns, size // 4))
    for axis, length in enumerate((height, width)):
        x = ops.slice(x, axis, 0, length) if length % 2 else x
    return x
