"""Random resizing and padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgemask.ops.draws import DRAW_BYTES, draw_below
from edgemask.ops.lookup import pixels_at
from edgemask.ops.protocol import Ops, T
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Family, Mask, given


@dataclass(frozen=True)
class RandomResizePad(Mask):
    """Resize to a random size, to the nearest pixel, and pad at random places to a fixed size.

    The authors' code enlarges 299 to a size in [310, 331) and pads to 331: `grow=1.107,smallest=0.9366`, for a model
    that takes 331; it also flips at random and sums 30 answers, which this does not. By default the frame shrinks
    instead and keeps its size, so that it suits any model. Frames need not be square; both sides scale alike. It does
    not mask gradients: every pixel that is kept passes its own.
    """

    kind: ClassVar[str] = "random-resize-pad"
    family: ClassVar[Family] = "stochastic"
    paper: ClassVar[str] = "Xie, Wang, Zhang, Ren and Yuille 2018, arXiv:1711.01991"
    claim: ClassVar[str] = "perturbations are tuned to a place and a size; second of 107 defences at NIPS 2017"
    fate: ClassVar[str] = "broken by EOT, the mean over draws (Athalye, Carlini and Wagner 2018, arXiv:1802.00420)"
    grow: float = param(1.0, doc="side of the output, in sides of the input", low=1, high=1.25)
    smallest: float = param(0.9, doc="smallest size of the image, in sides of the output", low=0.25, high=1)
    fill: int = param(128, doc="grey level of the padding: the paper's zero, for inputs of -1..1", low=0, high=255)

    def spec(self, x: Spec) -> Spec:
        height, width = self._sides(*x.require_pixels().sample[:2])
        return x.resized(H=height, W=width)

    def entropy_bytes(self, x: Spec) -> int:
        return 3 * DRAW_BYTES

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        height, width, _ = ops.shape(x)
        tall, wide = self._sides(height, width)
        scale, top, left = (ops.slice(entropy, 0, i * DRAW_BYTES, (i + 1) * DRAW_BYTES) for i in range(3))
        sizes = self._sizes(ops, scale, tall, wide)
        rows = ops.reshape(_sources(ops, height, tall, sizes[0], top), (tall, 1))
        columns = ops.reshape(_sources(ops, width, wide, sizes[1], left), (1, wide))
        return pixels_at(ops, _framed(ops, x, self.fill), rows, columns)

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        return round(height * self.grow), round(width * self.grow)

    def _sizes(self, ops: Ops[T], scale: T, tall: int, wide: int) -> tuple[T, T]:
        """Height and width of the resized image; its longer side is even over [smallest, output), as in the paper."""
        longest = max(tall, wide)
        least = max(1, round(longest * self.smallest))
        drawn = ops.add(draw_below(ops, scale, max(1, longest - least)), float(least))
        height, width = (
            ops.max(ops.floor(ops.mul(ops.add(ops.mul(drawn, side), 0.5), 1 / longest)), 1) for side in (tall, wide)
        )
        return height, width


def _sources(ops: Ops[T], length: int, out: int, size: T, entropy: T) -> T:
    """Where each of `out` comes from, `length` resized to `size` at a random place; 0 and length + 1 are padding."""
    offset = draw_below(ops, entropy, ops.add(ops.mul(size, -1), out + 1))
    at = ops.sub(ops.const(np.arange(out, dtype=np.float32)), offset)
    # The half keeps the quotient off whole numbers, so that no engine's division falls on the other side.
    source = ops.floor(ops.div(ops.add(ops.mul(at, length), 0.5), size))
    return ops.add(ops.clip(source, -1, length), 1)


def _framed(ops: Ops[T], x: T, fill: int) -> T:
    """`x` inside a border of one pixel of `fill`."""
    for axis in (0, 1):
        border = ops.max(ops.min(ops.slice(x, axis, 0, 1), fill), fill)
        x = ops.concat([border, x, border], axis)
    return x
