"""Wavelet denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask
from edgemask.wavelets import wavelets_shrunk


@dataclass(frozen=True)
class WaveletDenoise(Mask):
    """Threshold the Haar wavelets of YCbCr softly, each band by its own variance (BayesShrink).

    The second half of pixel deflection: scikit-image's denoise_wavelet with db1, convert2ycbcr and a given sigma. Only
    the last rounding cuts the gradient: soft thresholds pass it.
    """

    kind: ClassVar[str] = "wavelet-denoise"
    paper: ClassVar[str] = "Prakash et al. 2018, arXiv:1801.08926; Chang, Yu and Vetterli 2000, IEEE TIP 9(9)"
    cuts: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    claim: ClassVar[str] = "small wavelet coefficients hold much of a perturbation and little of the picture"
    fate: ClassVar[str] = (
        "after pixel deflection it left no accuracy (Athalye and Carlini 2018, arXiv:1804.03286); alone, whoever "
        "knows it follows the gradient"
    )
    deviation: float = param(10.2, doc="noise taken out, in grey levels: 0.04 of their range", low=1, high=64)
    levels: int = param(4, doc="levels of wavelets", low=1, high=6)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels().require_channels(1, 3)

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        centred = ops.sub(to_float(ops, x), 128.0)
        smooth = wavelets_shrunk(ops, centred, self.deviation, self.levels)
        return ops.clip(round_half_up(ops, ops.add(smooth, 128.0)), 0, 255)
