"""Random pixels dropped and filled in again by total variation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.smoothing import least_variation
from edgemask.spec import Spec
from edgemask.steps import Family, Mask, given

REACH = 2
"""A dropped value starts as the mean of those kept within so many pixels."""


@dataclass(frozen=True)
class PixelDrop(Mask):
    """Drop values at random and fill in what varies least: 1/2 |keep * (z - x)|**2 + weight * TV(z).

    Each value is dropped for itself, as in the paper, when its byte is below 256 * probability. What was dropped
    leaves no trace: it starts as the mean of the values kept around it. TV is isotropic, each channel for itself, in a
    fixed number of primal-dual steps (Chambolle and Pock 2011); the paper writes an unsquared distance and norms of
    whole rows and columns, and minimises by split Bregman, so its weight of 0.03 smooths not quite as ours. Only the
    last rounding cuts the gradient: what is kept passes it.
    """

    kind: ClassVar[str] = "pixel-drop"
    paper: ClassVar[str] = "Guo et al. 2018, arXiv:1711.00117"
    family: ClassVar[Family] = "stochastic"
    cuts: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    claim: ClassVar[str] = "an attack cannot know which values are kept, and smoothing removes small changes of those"
    fate: ClassVar[str] = "no accuracy left by EOT with BPDA (Athalye, Carlini and Wagner 2018, arXiv:1802.00420)"
    probability: float = param(0.5, doc="how likely a value is dropped, in steps of 1/256", low=0.1, high=0.8)
    weight: float = param(7.65, doc="weight of the variation, in grey levels: 0.03 of their range", low=1, high=64)
    iterations: int = param(30, doc="steps towards the least variation", low=5, high=50)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def entropy_bytes(self, x: Spec) -> int:
        return math.prod(x.sample)

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        level = ops.reshape(to_float(ops, entropy), ops.shape(x))
        drawn = ops.greater(level, round(self.probability * 256) - 0.5)
        keep = ops.cast(drawn, "float32")
        kept = ops.mul(to_float(ops, x), keep)
        start = ops.where(drawn, kept, _mean_around(ops, kept, keep))
        smooth = least_variation(ops, kept, keep, start, self.weight, self.iterations)
        return ops.clip(round_half_up(ops, smooth), 0, 255)


def _mean_around(ops: Ops[T], kept: T, keep: T) -> T:
    """The mean of the values kept within REACH; a 64th of a gray pixel stands in where there is none."""
    total, count = (_boxed(ops, value) for value in (kept, keep))
    return ops.div(ops.add(total, 2.0), ops.add(count, 1 / 64))


def _boxed(ops: Ops[T], x: T) -> T:
    """Sums over the pixels within REACH, of whole numbers."""
    for axis in (0, 1):
        size = ops.shape(x)[axis]
        wide = ops.pad(x, [(REACH, REACH) if i == axis else (0, 0) for i in range(3)])
        x = ops.slice(wide, axis, 0, size)
        for begin in range(1, 2 * REACH + 1):
            x = ops.add(x, ops.slice(wide, axis, begin, begin + size))
    return x
