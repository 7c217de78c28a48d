"""What the masks under a key have in common: blocks of pixels, all transformed alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgemask.ops.keys import WORD_BYTES
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import KeyedMask


@dataclass(frozen=True)
class BlockKeyedMask(KeyedMask):
    """A mask with one 16-bit word of the key for each value of a block x block pixels, the same for every block."""

    retrain: ClassVar[bool] = True
    block: int = param(4, doc="side of a block in pixels", low=2, high=8)

    def spec(self, x: Spec) -> Spec:
        """The same pixels, one channel or three."""
        return x.require_pixels().require_channels(1, 3)

    def key_bytes(self, x: Spec) -> int:
        """A word for each value of a block."""
        return self.block**2 * x.size("C") * WORD_BYTES
