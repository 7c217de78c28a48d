"""Half of the values of every block turned into their negative; a key decides which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.keys import WORD_BYTES, half, tiled, words
from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import KeyedMask, given


@dataclass(frozen=True)
class BitFlip(KeyedMask):
    """Flip all bits of a value, 255 - x, at half of the positions of every block x block pixels, all blocks alike.

    Those positions are flipped whose 16-bit words are the greater half of the key's. It does not mask gradients: they
    only change their sign.
    """

    kind: ClassVar[str] = "bit-flip"
    paper: ClassVar[str] = "AprilPyone and Kiya 2021, arXiv:2010.00801 (bit flipping)"
    retrain: ClassVar[bool] = True
    claim: ClassVar[str] = (
        "who lacks the key attacks another model: close to the clean accuracy under the paper's attacks"
    )
    fate: ClassVar[str] = (
        "no adaptive evaluation by others known to us; affine, so its gradient is whole for whoever has the key"
    )
    block: int = param(4, doc="side of a block in pixels", low=2, high=8)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels().require_channels(1, 3)

    def key_bytes(self, x: Spec) -> int:
        return self.block**2 * x.size("C") * WORD_BYTES

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        sign = ops.add(ops.mul(half(ops, words(ops, entropy)), -2.0), 1.0)
        centred = ops.sub(to_float(ops, x), 127.5)
        return ops.add(ops.mul(centred, tiled(ops, sign, ops.shape(x), self.block)), 127.5)
