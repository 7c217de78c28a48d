"""Permutations and choices of a secret key, in whole numbers that are the same on every engine."""

from __future__ import annotations

import numpy as np

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float

WORD_BYTES = 2


def words(ops: Ops[T], key: T) -> T:
    """Bytes [2 n] as n different numbers [n], ordered as big-endian 16-bit words are, equal ones by position.

    Up to 256 words: a word and its position are then one whole number below 2**24, exact in float32.
    """
    count = ops.shape(key)[0] // WORD_BYTES
    pairs = to_float(ops, ops.reshape(key, (count, WORD_BYTES)))
    column = ops.matmul(pairs, np.array([[256 * count], [count]], np.float32))
    return ops.add(ops.reshape(column, (count,)), ops.const(np.arange(count, dtype=np.float32)))


def ranks(ops: Ops[T], numbers: T) -> T:
    """How many of `numbers` [n] are less than each: a permutation of 0 … n - 1 when all differ."""
    (count,) = ops.shape(numbers)
    less = ops.greater(ops.reshape(numbers, (count, 1)), ops.reshape(numbers, (1, count)))
    return ops.reshape(ops.reduce_sum(ops.cast(less, "float32"), 1), (count,))


def permutation(ops: Ops[T], numbers: T) -> T:
    """The matrix [n, n] that moves the value at position i to the rank of number i, as a row times it."""
    (count,) = ops.shape(numbers)
    column = ops.reshape(ranks(ops, numbers), (count, 1))
    return ops.cast(ops.equal(column, ops.const(np.arange(count, dtype=np.float32))), "float32")


def half(ops: Ops[T], numbers: T) -> T:
    """1 at one half of the positions, those of the greater numbers, and 0 at the others."""
    (count,) = ops.shape(numbers)
    return ops.cast(ops.greater(ranks(ops, numbers), count // 2 - 0.5), "float32")


def tiled(ops: Ops[T], block: T, shape: tuple[int, ...], side: int) -> T:
    """The values of a block [side * side * C], row by row, again and again over an image of `shape` H x W x C."""
    height, width, channels = shape
    run = side * channels
    row = ops.gather(ops.reshape(block, (side, run)), [i % run for i in range(width * channels)], axis=1)
    return ops.reshape(ops.gather(row, [i % side for i in range(height)], axis=0), shape)
