"""Pixels from elsewhere in the frame: what resizing, cropping and turning at random come to."""

from __future__ import annotations

from edgemask.ops.protocol import Ops, T


def pixels_at(ops: Ops[T], x: T, rows: T, columns: T) -> T:
    """Pixels of `x` [H, W, C] at whole float32 `rows` and `columns`, which broadcast to the new height x width.

    Why not rows first, then columns: that takes two transpositions, and takes twice as long.
    """
    height, width, channels = ops.shape(x)
    index = ops.add(ops.mul(ops.cast(rows, "int32"), width), ops.cast(columns, "int32"))
    tall, wide = ops.shape(index)
    pixels = ops.take(ops.reshape(x, (height * width, channels)), ops.reshape(index, (tall * wide,)))
    return ops.reshape(pixels, (tall, wide, channels))
