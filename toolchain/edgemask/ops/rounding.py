"""The one way to round a computed value, so that every engine rounds it the same way."""

from __future__ import annotations

from edgemask.ops.protocol import Ops, T

TIE_NUDGE = 2.0**-9


def round_half_up(ops: Ops[T], x: T) -> T:
    """Round float32 `x`; exact halves go up, whatever the order of summation that gave them.

    Products of fixed tables and whole numbers make exact halves often, and the last bit then decides. The nudge is
    far above float32's error on 0..4096 and far below what an eye or a model sees.
    """
    return ops.round(ops.add(x, TIE_NUDGE))


def to_float(ops: Ops[T], x: T) -> T:
    """`x` as float32."""
    return x if ops.dtype(x) == "float32" else ops.cast(x, "float32")
