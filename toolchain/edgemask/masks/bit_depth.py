"""Fewer grey levels per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class BitDepth(Mask):
    """Keep 2**bits levels of every channel.

    `round` takes the nearest of levels evenly spaced from 0 to 255 (Xu's formula); `truncate` clears the lower bits, as
    a cheap sensor does, and is darker by half a level.
    """

    kind: ClassVar[str] = "bit-depth"
    paper: ClassVar[str] = "Xu, Evans and Qi 2018, arXiv:1704.01155"
    cuts: ClassVar[bool] = True
    claim: ClassVar[str] = "fewer levels leave less room for a perturbation"
    fate: ClassVar[str] = "an attacker who knows it needs little more distortion (He et al. 2017, arXiv:1706.04701)"
    bits: int = param(4, doc="bits kept per channel", low=1, high=7)
    rounding: Literal["round", "truncate"] = param("round", doc="nearest level, or lower bits cleared")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        if self.rounding == "truncate":
            step = 2.0 ** (8 - self.bits)
            return ops.mul(ops.floor(ops.mul(to_float(ops, x), 1 / step)), step)
        top = 2**self.bits - 1
        level = round_half_up(ops, ops.mul(to_float(ops, x), top / 255))
        return round_half_up(ops, ops.mul(level, 255 / top))
