"""Another size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import FrameStep


@dataclass(frozen=True)
class Resize(FrameStep):
    """Stretch to width x height, pixel centres aligned at halves, without antialias.

    `bilinear` is PyTorch's and OpenCV's linear; `nearest` is Pillow's and PyTorch's nearest-exact.
    """

    kind: ClassVar[str] = "resize"
    width: int = param(doc="width in pixels", low=1, high=16384)
    height: int = param(doc="height in pixels", low=1, high=16384)
    interpolation: Literal["bilinear", "nearest"] = param("bilinear", doc="how pixels in between are made")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels().resized(H=self.height, W=self.width)

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        height, width, _ = ops.shape(x)
        if (height, width) == (self.height, self.width):
            return x
        if self.interpolation == "bilinear":
            return round_half_up(ops, ops.resize(to_float(ops, x), self.height, self.width))
        rows = ops.gather(x, _nearest(height, self.height), 0)
        return ops.gather(rows, _nearest(width, self.width), 1)


def _nearest(size: int, new_size: int) -> list[int]:
    """floor((i + 1/2) * size / new_size) in whole numbers: no engine's float decides."""
    return [(2 * i + 1) * size // (2 * new_size) for i in range(new_size)]
