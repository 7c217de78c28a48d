"""Ordered dithering with Bayer's matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.dither import bayer, dithered
from edgemask.ops.protocol import Ops, T
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class OrderedDither(Mask):
    """Show every channel in `levels` values; Bayer's matrix decides which pixels round up.

    All channels share the matrix. Unlike bit-depth it keeps the mean of flat areas. The matrix is fixed and public.
    """

    kind: ClassVar[str] = "ordered-dither"
    paper: ClassVar[str] = "Bayer 1973, IEEE ICC, An optimum method for two-level rendition of continuous-tone pictures"
    cuts: ClassVar[bool] = True
    claim: ClassVar[str] = (
        "Lo and Patel 2021 (arXiv:2101.09451) claim robustness for halftoning by error diffusion with adversarial "
        "training; of ordered dithering as a defence we know no paper"
    )
    fate: ClassVar[str] = (
        "nothing adaptive on it is published that we know; its threshold is fixed, so BPDA fits (Athalye et al. 2018)"
    )
    levels: int = param(4, doc="values of each channel", low=2, high=64)
    matrix: Literal[2, 4, 8] = param(8, doc="side of Bayer's matrix")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        return dithered(ops, x, self.levels, bayer(self.matrix))
