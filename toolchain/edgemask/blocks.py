"""The 8 x 8 block transform that JPEG and its kin quantise, in numbers that float32 adds without error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemask.ops.protocol import Ops, T

SIDE = 8
FORWARD_BITS, INVERSE_BITS = 12, 11
"""The tables are whole numbers times 2**-bits, so every float32 sum of products is exact in any order of summation.

Forward: pixels are quarters (of averaged chroma) up to 128, or whole numbers up to 255, and a basis sums to at most 8:
2 + 7 + 3 + 12 = 24 bits. Inverse: a plane's coefficients have norm 8 * 128, or 8 * 255 for a single plane, which
rounding at most doubles, times 2.8 for JPEG's colours: 11 + 1.5 + 11 bits.
"""


def dct(size: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II, rows are frequencies (ITU-T T.81, A.3.3, for size 8)."""
    frequency, at = np.mgrid[:size, :size]
    scale = np.where(frequency == 0, np.sqrt(1 / size), np.sqrt(2 / size))
    return np.asarray(scale * np.cos((2 * at + 1) * frequency * np.pi / (2 * size)))


def basis() -> NDArray[np.float64]:
    """The 64 frequencies of a block (rows) at its 64 pixels."""
    return np.asarray(np.einsum("uy,vx->uvyx", dct(SIDE), dct(SIDE)).reshape(64, 64))


def split(ops: Ops[T], x: T) -> T:
    """H x W x C to one row of 64 C values a block."""
    height, width, channels = ops.shape(x)
    x = ops.reshape(x, (height // SIDE, SIDE, width // SIDE, SIDE * channels))
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (height * width // 64, 64 * channels))


def join(ops: Ops[T], blocks: T, height: int, width: int) -> T:
    """Rows of blocks back to H x W x C."""
    channels = ops.shape(blocks)[1] // 64
    x = ops.reshape(blocks, (height // SIDE, width // SIDE, SIDE, SIDE * channels))
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (height, width, channels))


def padded(ops: Ops[T], x: T, block: int) -> T:
    """`x` with its last row and column repeated up to whole blocks."""
    height, width, _ = ops.shape(x)
    if height % block == width % block == 0:
        return x
    return ops.pad(x, ((0, -height % block), (0, -width % block), (0, 0)), "edge")


def cropped(ops: Ops[T], x: T, height: int, width: int) -> T:
    """The first `height` rows and `width` columns."""
    for axis, size in enumerate((height, width)):
        if ops.shape(x)[axis] != size:
            x = ops.slice(x, axis, 0, size)
    return x
