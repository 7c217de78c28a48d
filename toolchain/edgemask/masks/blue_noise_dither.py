"""Dithering with a blue-noise matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.dither import dithered, void_and_cluster
from edgemask.ops.protocol import Ops, T
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class BlueNoiseDither(Mask):
    """Show every channel in `levels` values; a blue-noise matrix of 32 x 32 decides which pixels round up.

    Void and cluster spreads the thresholds without Bayer's visible grid. All channels share the matrix, which is fixed
    and public.
    """

    kind: ClassVar[str] = "blue-noise-dither"
    paper: ClassVar[str] = "Ulichney 1993, SPIE 1913, The void-and-cluster method for dither array generation"
    cuts: ClassVar[bool] = True
    claim: ClassVar[str] = (
        "Lo and Patel 2021 (arXiv:2101.09451) claim robustness for halftoning by error diffusion with adversarial "
        "training; of blue-noise dithering as a defence we know no paper"
    )
    fate: ClassVar[str] = (
        "nothing adaptive on it is published that we know; its threshold is fixed, so BPDA fits (Athalye et al. 2018)"
    )
    levels: int = param(4, doc="values of each channel", low=2, high=64)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        return dithered(ops, x, self.levels, void_and_cluster())
