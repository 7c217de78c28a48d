"""The median of each pixel's neighbourhood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgemask.ops.protocol import Ops, T
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Mask

Network = Sequence[tuple[int, int]]
"""Comparators in order: (a, b) leaves the smaller of wires a and b on a, the larger on b."""

_PAIRS_TO_SORTED: Network = ((2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))
"""Five wires of which (0, 1) and (3, 4) are in order already."""

_ROWS: Network = tuple((5 * row + a, 5 * row + b) for row in range(5) for a, b in _PAIRS_TO_SORTED)
_MIDDLE: Network = (
    *((20, 4), (12, 4), (20, 12), (15, 11), (21, 17), (9, 13), (7, 3), (12, 3), (3, 21), (12, 3)),
    *((11, 8), (8, 3), (11, 20), (20, 8), (4, 9), (12, 15), (3, 4), (3, 16), (8, 3)),
)
"""Wire 5 r + c holds row r, column c; with columns and then rows sorted, wire 3 ends with the 13th of the 25.

Found by beam search over the 252 patterns of zeros and ones that such a square can hold (Knuth's 0-1 principle).
"""


@dataclass(frozen=True)
class Median(Mask):
    """Replace every channel of a pixel by the median of its `size` x `size` neighbourhood; edges are repeated outwards.

    Size 2 takes the pixel, those above and left of it, and the larger of the two middle values, as scipy does. It does
    not mask gradients: the median passes the gradient of the pixel it picks.
    """

    kind: ClassVar[str] = "median"
    paper: ClassVar[str] = "Xu, Evans and Qi 2018, arXiv:1704.01155"
    claim: ClassVar[str] = "smoothing removes isolated changes of pixels"
    fate: ClassVar[str] = (
        "differentiable as it is; an attacker who knows it gets past (He et al. 2017, arXiv:1706.04701)"
    )
    size: Literal[2, 3, 5] = param(3, doc="side of the neighbourhood in pixels")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        margin = (self.size // 2, (self.size - 1) // 2)
        x = ops.pad(x, (margin, margin, (0, 0)), "edge")
        return {2: _of_4, 3: _of_9, 5: _of_25}[self.size](ops, x)


def _of_4(ops: Ops[T], x: T) -> T:
    low, high = _compared(ops, *_windows(ops, x, 0, 2))
    return ops.max(ops.max(*_windows(ops, low, 1, 2)), ops.min(*_windows(ops, high, 1, 2)))


def _of_9(ops: Ops[T], x: T) -> T:
    low, middle, high = _sorted(ops, _windows(ops, x, 0, 3))
    greatest_low = _largest(ops, _windows(ops, low, 1, 3))
    middle_middle = _middle(ops, _windows(ops, middle, 1, 3))
    smallest_high = _smallest(ops, _windows(ops, high, 1, 3))
    return _middle(ops, (greatest_low, middle_middle, smallest_high))


def _of_25(ops: Ops[T], x: T) -> T:
    columns = _run(ops, _paired(ops, x, 0), _PAIRS_TO_SORTED, range(5))
    wires = [wire for rank in columns for wire in _paired(ops, rank, 1)]
    return _run(ops, wires, (*_ROWS, *_MIDDLE), [3])[3]


def _windows(ops: Ops[T], x: T, axis: int, count: int) -> list[T]:
    """`x` seen from each of `count` neighbours along `axis`."""
    size = ops.shape(x)[axis] - count + 1
    return [ops.slice(x, axis, begin, begin + size) for begin in range(count)]


def _paired(ops: Ops[T], x: T, axis: int) -> list[T]:
    """The five windows of `x` with the first two and the last two in order: one comparator serves both."""
    size = ops.shape(x)[axis]
    before, after = _windows(ops, x, axis, 2)
    pairs = [(ops.slice(y, axis, 0, size - 4), ops.slice(y, axis, 3, size - 1)) for y in _compared(ops, before, after)]
    (low, later_low), (high, later_high) = pairs
    return [low, high, ops.slice(x, axis, 2, size - 2), later_low, later_high]


def _run(ops: Ops[T], wires: Sequence[T], network: Network, wanted: Iterable[int]) -> list[T]:
    """The wires after the comparators; a minimum or maximum that no `wanted` wire needs is left out."""
    wires = list(wires)
    for (a, b), (low, high) in zip(network, _needed(network, wanted), strict=True):
        x, y = wires[a], wires[b]
        wires[a] = ops.min(x, y) if low else x
        wires[b] = ops.max(x, y) if high else y
    return wires


def _needed(network: Network, wanted: Iterable[int]) -> list[tuple[bool, bool]]:
    """Of each comparator, whether its minimum and its maximum reach a `wanted` wire."""
    live, needed = set(wanted), []
    for a, b in reversed(network):
        needed.append((a in live, b in live))
        live |= {a, b} if live & {a, b} else set()
    return needed[::-1]


def _compared(ops: Ops[T], x: T, y: T) -> tuple[T, T]:
    return ops.min(x, y), ops.max(x, y)


def _sorted(ops: Ops[T], values: Sequence[T]) -> tuple[T, T, T]:
    a, b, c = values
    low, high = _compared(ops, a, b)
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
