"""Non-local means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class NonLocalMeans(Mask):
    """Average each pixel with those around it whose patches look like its own; edges are repeated outwards.

    The weight of pixel q for pixel p is exp(-d / strength**2), d the mean squared difference of their patches over
    pixels and channels: OpenCV's fastNlMeansDenoising on RGB or gray, to within one grey level inside the frame. The
    paper used its fastNlMeansDenoisingColored, which weighs L and ab of CIE Lab apart, with 11-3-4 on ImageNet, as
    here, and 13-3-2 on CIFAR-10. Only the last rounding cuts the gradient: the averages themselves pass it.
    """

    kind: ClassVar[str] = "non-local-means"
    paper: ClassVar[str] = "Buades, Coll and Morel 2005, CVPR; Xu, Evans and Qi 2018, arXiv:1704.01155"
    cuts: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    claim: ClassVar[str] = "averages of alike patches keep edges and drop small perturbations"
    fate: ClassVar[str] = (
        "smooth but for the last rounding, so whoever knows it follows the gradient; nothing adaptive published "
        "on it alone, its paper's other squeezers fell (He et al. 2017, arXiv:1706.04701)"
    )
    search_radius: int = param(5, doc="pixels searched to each side: 5 is a window of 11", low=1, high=6)
    patch_radius: int = param(1, doc="pixels of a patch to each side of its middle: 1 is 3 x 3", low=1, high=2)
    strength: float = param(4.0, doc="difference of patches that still counts as alike, in grey levels", low=1, high=32)

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        height, width, channels = ops.shape(x)
        margin = self.search_radius + self.patch_radius
        row = width + 2 * margin
        # Rows end to end: a shift in two dimensions is one run of memory, and what wraps falls into the margins.
        planes = ops.transpose(ops.pad(x, ((margin, margin), (margin, margin), (0, 0)), "edge"), (2, 0, 1))
        planes = to_float(ops, ops.reshape(planes, (channels, row * (height + 2 * margin))))
        mean = self._mean(ops, planes, row, margin * (row + 1), (height - 1) * row + width)
        whole = ops.pad(round_half_up(ops, mean), ((0, 0), (0, row - width)))
        framed = ops.reshape(whole, (channels, height, row))
        return ops.transpose(ops.slice(framed, 2, 0, width), (1, 2, 0))

    def _mean(self, ops: Ops[T], planes: T, row: int, begin: int, size: int) -> T:
        """The weighted mean of the `size` pixels of each plane from `begin` on."""
        total = ops.slice(planes, 1, begin, begin + size)
        weights = ops.const(np.ones((1, 1), np.float32))
        for shift in self._shifts(row):
            # The weight of p for q is that of q for p: each serves the pixels ahead and those behind.
            both = self._weights(ops, planes, row, begin, size, shift)
            ahead, behind = ops.slice(both, 1, shift, shift + size), ops.slice(both, 1, 0, size)
            weights = ops.add(weights, ops.add(ahead, behind))
            total = ops.add(total, ops.mul(ops.slice(planes, 1, begin + shift, begin + shift + size), ahead))
            total = ops.add(total, ops.mul(ops.slice(planes, 1, begin - shift, begin - shift + size), behind))
        return ops.div(total, weights)

    def _shifts(self, row: int) -> Iterator[int]:
        """The half of the search window that lies ahead."""
        reach = self.search_radius
        for down in range(reach + 1):
            for right in range(-reach, reach + 1):
                if down * row + right > 0:
                    yield down * row + right

    def _weights(self, ops: Ops[T], planes: T, row: int, begin: int, size: int, shift: int) -> T:
        """The weights of each pixel from `begin - shift` on and the one `shift` ahead of it."""
        side, reach = 2 * self.patch_radius + 1, self.patch_radius * (row + 1)
        first, last = begin - shift - reach, begin + size + reach
        difference = ops.sub(
            ops.slice(planes, 1, first + shift, last + shift),
            ops.slice(planes, 1, first, last),
        )
        distance = _boxed(ops, ops.mul(difference, difference), side, row)
        samples = side**2 * ops.shape(planes)[0]
        return ops.exp(ops.mul(distance, -1 / (samples * self.strength**2)))


def _boxed(ops: Ops[T], planes: T, side: int, row: int) -> T:
    """Sums over all planes and `side` x `side` pixels; whole numbers below 2**24, so that any order gives the same."""
    x = ops.reduce_sum(planes, 0)
    for step in (1, row):
        size = ops.shape(x)[1] - (side - 1) * step
        windows = [ops.slice(x, 1, i * step, i * step + size) for i in range(side)]
        x = windows[0]
        for window in windows[1:]:
            x = ops.add(x, window)
    return x
