"""The median of each pixel's neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.ops.protocol import Ops, T
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask


@dataclass(frozen=True)
class Median(Mask):
    """Replace every channel of a pixel by the median of its 3 x 3 neighbourhood; edges are repeated outwards.

    It does not mask gradients: the median passes the gradient of the pixel it picks.
    """

    kind: ClassVar[str] = "median"
    paper: ClassVar[str] = "Xu, Evans and Qi 2018, arXiv:1704.01155"
    claim: ClassVar[str] = "smoothing removes isolated changes of pixels"
    fate: ClassVar[str] = (
        "differentiable as it is; an attacker who knows it gets past (He et al. 2017, arXiv:1706.04701)"
    )
    size: Literal[3] = param(3, doc="side of the neighbourhood in pixels")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        x = ops.pad(x, ((1, 1), (1, 1), (0, 0)), "edge")
        low, middle, high = _sorted(ops, _windows(ops, x, axis=0))
        greatest_low = _largest(ops, _windows(ops, low, axis=1))
        middle_middle = _middle(ops, _windows(ops, middle, axis=1))
        smallest_high = _smallest(ops, _windows(ops, high, axis=1))
        return _middle(ops, (greatest_low, middle_middle, smallest_high))


def _windows(ops: Ops[T], x: T, axis: int) -> tuple[T, T, T]:
    """`x` seen from the pixel before, at and after each along `axis`."""
    size = ops.shape(x)[axis] - 2
    before, at, after = (ops.slice(x, axis, begin, begin + size) for begin in range(3))
    return before, at, after


def _sorted(ops: Ops[T], values: Sequence[T]) -> tuple[T, T, T]:
    a, b, c = values
    low, high = ops.min(a, b), ops.max(a, b)
    return ops.min(low, c), ops.max(low, ops.min(high, c)), ops.max(high, c)


def _middle(ops: Ops[T], values: Sequence[T]) -> T:
    a, b, c = values
    return ops.max(ops.min(a, b), ops.min(ops.max(a, b), c))


def _largest(ops: Ops[T], values: Sequence[T]) -> T:
    a, b, c = values
    return ops.max(ops.max(a, b), c)


def _smallest(ops: Ops[T], values: Sequence[T]) -> T:
    a, b, c = values
    return ops.min(ops.min(a, b), c)
