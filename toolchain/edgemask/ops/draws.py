"""Whole numbers drawn evenly from entropy, the same on every engine."""

from __future__ import annotations

import numpy as np

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float

DRAW_BYTES = 3
"""Bytes that one draw takes."""


def draw_below(ops: Ops[T], entropy: T, limit: T | float) -> T:
    """One whole number from 0 to `limit` - 1 for every DRAW_BYTES of `entropy`, as float32; `limit` up to 65536.

    What long multiplication in base 256 carries out at the top: no sum exceeds 256 * `limit`, so float32 holds them
    all. No number is favoured by more than `limit` / 2**24.
    """
    count = ops.shape(entropy)[0] // DRAW_BYTES
    lowest, *higher = (to_float(ops, ops.slice(entropy, 0, i * count, (i + 1) * count)) for i in range(DRAW_BYTES))
    carry = ops.floor(ops.mul(ops.mul(lowest, limit), 1 / 256))
    for byte in higher:
        carry = ops.floor(ops.mul(ops.add(ops.mul(byte, limit), carry), 1 / 256))
    return carry


def one_hot(ops: Ops[T], index: T, count: int) -> T:
    """Rows of `count`: 1 at the whole number in `index` [..., 1], 0 elsewhere; a matrix product picks with them."""
    return ops.cast(ops.equal(index, ops.const(np.arange(count, dtype=np.float32))), "float32")
