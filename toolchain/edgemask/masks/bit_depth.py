"""Fewer grey levels per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class BitDepth(Mask):
    """Round every channel to 2**bits levels, evenly spaced from 0 to 255."""

    kind: ClassVar[str] = "bit-depth"
    paper: ClassVar[str] = "Xu, Evans and Qi 2018, arXiv:1704.01155"
    cuts: ClassVar[bool] = True
    claim: ClassVar[str] = "fewer levels leave less room for a perturbation"
    fate: ClassVar[str] = "an attacker who knows it needs little more distortion (He et al. 2017, arXiv:1706.04701)"
    bits: int = param(4, doc="bits kept per channel", low=1, high=7)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        top = 2**self.bits - 1
        level = round_half_up(ops, ops.mul(to_float(ops, x), top / 255))
        return round_half_up(ops, ops.mul(level, 255 / top))
