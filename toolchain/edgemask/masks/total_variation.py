"""Total-variation smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.smoothing import least_variation
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class TotalVariation(Mask):
    """Move towards the least of 1/2 |z - x|**2 + weight * TV(z): flat areas, sharp edges (Rudin, Osher and Fatemi).

    A fixed number of the primal-dual steps of Chambolle and Pock 2011, unrolled; TV is isotropic, each channel for
    itself, as scikit-image's denoise_tv_chambolle at the same weight. Guo et al. drop pixels first (see pixel-drop)
    and minimise by split Bregman. Only the last rounding cuts the gradient: the smoothing itself passes it.
    """

    kind: ClassVar[str] = "total-variation"
    paper: ClassVar[str] = "Rudin, Osher and Fatemi 1992, Physica D 60; Guo et al. 2018, arXiv:1711.00117"
    cuts: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    claim: ClassVar[str] = "flat areas without the small changes that an attack adds"
    fate: ClassVar[str] = (
        "no accuracy left by BPDA with the identity for Guo et al.'s form (Athalye, Carlini and Wagner 2018, "
        "arXiv:1802.00420); this one passes its gradient but for the last rounding"
    )
    weight: float = param(7.65, doc="weight of the variation, in grey levels: 0.03 of their range", low=1, high=64)
    iterations: int = param(30, doc="steps towards the least variation", low=5, high=50)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        x = to_float(ops, x)
        smooth = least_variation(ops, x, None, x, self.weight, self.iterations)
        return ops.clip(round_half_up(ops, smooth), 0, 255)
