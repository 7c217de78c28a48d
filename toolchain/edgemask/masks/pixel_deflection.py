"""Random pixels replaced by neighbours, and the traces denoised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgemask.ops.draws import DRAW_BYTES, draw_below, one_hot
from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Family, Mask, given
from edgemask.wavelets import wavelets_shrunk


@dataclass(frozen=True)
class PixelDeflection(Mask):
    """Replace random pixels by random neighbours, then denoise with wavelets (see wavelet-denoise).

    Pixels and neighbours are drawn evenly, neighbours from the part of the window that is in the frame. All are read
    before any is written; of several that hit one pixel the last wins. No map of class activations says which pixels
    matter, since a graph in front of the model has none; a whole pixel moves, where the paper's code draws anew for
    each colour. Only the last rounding cuts the gradient.
    """

    kind: ClassVar[str] = "pixel-deflection"
    paper: ClassVar[str] = "Prakash et al. 2018, arXiv:1801.08926"
    family: ClassVar[Family] = "stochastic"
    cuts: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    claim: ClassVar[str] = "moved pixels disturb a crafted perturbation more than a natural picture"
    fate: ClassVar[str] = "no accuracy left at 4/255 by BPDA (Athalye and Carlini 2018, arXiv:1804.03286)"
    deflections: int = param(100, doc="pixels replaced", low=1, high=1000)
    window: int = param(10, doc="how far off the neighbour may be, in rows and in columns", low=1, high=64)
    deviation: float = param(10.2, doc="noise taken out, in grey levels: 0.04 of their range", low=1, high=64)
    levels: int = param(4, doc="levels of wavelets", low=1, high=6)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels().require_channels(1, 3)

    def entropy_bytes(self, x: Spec) -> int:
        return 4 * DRAW_BYTES * self.deflections

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        deflected = self.deflected(ops, to_float(ops, x), entropy)
        smooth = wavelets_shrunk(ops, ops.sub(deflected, 128.0), self.deviation, self.levels)
        return ops.clip(round_half_up(ops, ops.add(smooth, 128.0)), 0, 255)

    def deflected(self, ops: Ops[T], x: T, entropy: T) -> T:
        """Float32 `x` with its pixels replaced, before it is denoised."""
        height, width, channels = ops.shape(x)
        size = DRAW_BYTES * self.deflections
        draws = [ops.slice(entropy, 0, i * size, (i + 1) * size) for i in range(4)]
        row, column = draw_below(ops, draws[0], float(height)), draw_below(ops, draws[1], float(width))
        target = _index(ops, row, column, width)
        source = _index(ops, self._near(ops, row, height, draws[2]), self._near(ops, column, width, draws[3]), width)
        pixels = ops.reshape(x, (height * width, channels))
        change = ops.sub(ops.take(pixels, source), ops.take(pixels, target))
        change = ops.mul(change, _is_last(ops, target))
        return ops.add(x, _placed(ops, row, column, change, (height, width)))

    def _near(self, ops: Ops[T], at: T, size: int, draws: T) -> T:
        """Evenly drawn from what lies within the window of `at` and from 0 to `size` - 1."""
        first = ops.max(ops.sub(at, float(self.window)), 0.0)
        last = ops.min(ops.add(at, float(self.window)), size - 1.0)
        return ops.add(first, draw_below(ops, draws, ops.add(ops.sub(last, first), 1.0)))


def _index(ops: Ops[T], row: T, column: T, width: int) -> T:
    """Where the pixel is when the rows stand end to end."""
    return ops.add(ops.mul(ops.cast(row, "int32"), width), ops.cast(column, "int32"))


def _is_last(ops: Ops[T], index: T) -> T:
    """Per entry 1 if none after it is the same, else 0, as [M, 1]."""
    (count,) = ops.shape(index)
    same = ops.cast(ops.equal(ops.reshape(index, (count, 1)), ops.reshape(index, (1, count))), "float32")
    order = np.arange(1, count + 1, dtype=np.float32)
    last = ops.reduce_max(ops.mul(same, ops.const(order)), 1)
    return ops.cast(ops.equal(last, ops.const(order.reshape(count, 1))), "float32")


def _placed(ops: Ops[T], row: T, column: T, change: T, size: tuple[int, int]) -> T:
    """Each change at its row and column of H x W x C, 0 elsewhere: an outer product of two selections."""
    (count, channels), (height, width) = ops.shape(change), size
    columns = ops.reshape(one_hot(ops, ops.reshape(column, (count, 1)), width), (count, width, 1))
    spread = ops.mul(columns, ops.reshape(change, (count, 1, channels)))
    rows = ops.transpose(one_hot(ops, ops.reshape(row, (count, 1)), height), (1, 0))
    placed = ops.batch_matmul(rows, ops.reshape(spread, (count, width * channels)))
    return ops.reshape(placed, (height, width, channels))
