"""Colour order: from what the camera gives to what the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.params import param
from edgemask.spec import COLOURS, Colour, Misfit, Spec
from edgemask.steps import FrameStep

_LUMA = {"rgb": (19595, 38470, 7471), "bgr": (7471, 38470, 19595)}
"""ITU-R BT.601 luma in units of 2**-16, the whole numbers that Pillow's mode "L" uses."""


@dataclass(frozen=True)
class _To(FrameStep):
    to: ClassVar[Colour]
    source: Colour | None = param(None, doc="colour of what comes in; known from the frame if left out")

    def fit(self, x: Spec) -> Self:
        return self if self.source else replace(self, source=x.colour)

    def spec(self, x: Spec) -> Spec:
        if self.source is None or x.require_pixels().colour != self.source:
            raise Misfit(f"needs {self.source or 'a known colour order'}, gets {x}")
        return replace(x.resized(C=COLOURS[self.to]), colour=self.to)

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        if self.source == self.to:
            return x
        if self.source == "gray":
            return ops.concat([x, x, x], 2)
        if self.to == "gray":
            return _luma(ops, x, self.source or "")
        return ops.concat([ops.slice(x, 2, channel, channel + 1) for channel in (2, 1, 0)], 2)


@dataclass(frozen=True)
class Rgb(_To):
    """Red, green, blue."""

    kind: ClassVar[str] = "rgb"
    to: ClassVar[Colour] = "rgb"


@dataclass(frozen=True)
class Bgr(_To):
    """Blue, green, red: what OpenCV reads and many models were trained on."""

    kind: ClassVar[str] = "bgr"
    to: ClassVar[Colour] = "bgr"


@dataclass(frozen=True)
class Gray(_To):
    """One channel of BT.601 luma, the same whole number that Pillow gives."""

    kind: ClassVar[str] = "gray"
    to: ClassVar[Colour] = "gray"


def _luma(ops: Ops[T], x: T, source: str) -> T:
    """Whole numbers up to 255 * 2**16 < 2**24: exact in float32."""
    total = ops.matmul(to_float(ops, x), np.array(_LUMA[source], np.float32)[:, None])
    return ops.floor(ops.add(ops.mul(total, 2.0**-16), 0.5))
