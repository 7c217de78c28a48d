"""Random noise added to the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Family, Mask, given

_BYTES = {"gaussian": 4, "uniform": 1}
_BYTE_VARIANCE = (256**2 - 1) / 12


@dataclass(frozen=True)
class Noise(Mask):
    """Add whole-numbered noise, fresh for every frame, and clip to 0..255.

    `strength` is the standard deviation (gaussian) or the largest change (uniform), in grey levels. Both are shaped
    from bytes in whole numbers, so that no engine's logarithm or cosine decides: gaussian is the sum of four uniform
    bytes (Irwin-Hall; ends at 3.4 standard deviations), uniform scales one byte. It does not mask gradients.
    """

    kind: ClassVar[str] = "noise"
    paper: ClassVar[str] = "Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918 (gaussian; the certificate is not built)"
    family: ClassVar[Family] = "stochastic"
    claim: ClassVar[str] = "noise drowns small perturbations; certified only with many votes and a model trained for it"
    fate: ClassVar[str] = "one draw a frame, as here, certifies nothing; EOT averages it away (Athalye et al. 2018)"
    distribution: Literal["gaussian", "uniform"] = param("gaussian", doc="shape of the noise")
    strength: float = param(8.0, doc="standard deviation or largest change, in grey levels", low=0.5, high=64)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def entropy_bytes(self, x: Spec) -> int:
        return math.prod(x.sample) * _BYTES[self.distribution]

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        noise = self._gaussian(ops, entropy) if self.distribution == "gaussian" else self._uniform(ops, entropy)
        noisy = ops.add(to_float(ops, x), ops.reshape(noise, ops.shape(x)))
        return ops.clip(noisy, 0, 255)

    def _gaussian(self, ops: Ops[T], entropy: T) -> T:
        size = ops.shape(entropy)[0] // 4
        a, b, c, d = (to_float(ops, ops.slice(entropy, 0, i * size, (i + 1) * size)) for i in range(4))
        centred = ops.sub(ops.add(ops.add(a, b), ops.add(c, d)), 4 * 127.5)
        return round_half_up(ops, ops.mul(centred, self.strength / math.sqrt(4 * _BYTE_VARIANCE)))

    def _uniform(self, ops: Ops[T], entropy: T) -> T:
        centred = ops.sub(to_float(ops, entropy), 127.5)
        return round_half_up(ops, ops.mul(centred, self.strength / 127.5))
