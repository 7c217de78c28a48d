"""Threshold dithering: the matrices, and what a mask does with one."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float

Ranks = NDArray[np.int64]
"""A square of side 2**k in which each of 0 .. 4**k - 1 stands once: the order in which its pixels light up."""

BLUE_SIDE = 32
_FIRST = 102
"""Lit pixels of the first pattern: a tenth."""


def dithered(ops: Ops[T], x: T, levels: int, ranks: Ranks) -> T:
    """Each channel at `levels` evenly spaced values: rounded up where the tiled threshold allows it.

    Exact on every engine: the sum is a whole number of 256ths below 2**22 and never a whole level, as the thresholds
    are odd where it is even; so it is 1 / 256 off at least, which float32 holds through the division.
    """
    height, width, channels = ops.shape(x)
    side = len(ranks)
    x = ops.mul(to_float(ops, x), float(levels - 1))
    x = ops.pad(x, ((0, -height % side), (0, 0), (0, 0)), "edge") if height % side else x
    rows = ops.reshape(x, (-(-height // side), side, width * channels))
    rows = ops.floor(ops.div(ops.add(rows, ops.const(_thresholds(ranks, width, channels))), 255.0))
    x = ops.reshape(rows, (-(-height // side) * side, width, channels))
    x = ops.slice(x, 0, 0, height) if height % side else x
    return round_half_up(ops, ops.mul(x, 255 / (levels - 1)))


def _thresholds(ranks: Ranks, width: int, channels: int) -> NDArray[np.float32]:
    """One row of tiles, side x (width * channels): (rank + 1/2) / side**2 of a level, to odd 256ths where finer."""
    shares = (ranks * 256 // ranks.size) | 1 if ranks.size >= 128 else (2 * ranks + 1) * (128 // ranks.size)
    tiled = np.tile(shares, (1, -(-width // len(ranks))))[:, :width]
    return (np.repeat(tiled, channels, axis=1) * (255 / 256)).astype(np.float32)


def bayer(side: int) -> Ranks:
    """Bayer's matrix (1973): each quarter refines the one of half the side."""
    if side == 1:
        return np.zeros((1, 1), np.int64)
    finer = 4 * bayer(side // 2)
    return np.block([[finer, finer + 2], [finer + 3, finer + 1]])


@cache
def void_and_cluster() -> Ranks:
    """Ulichney's blue-noise matrix (1993), in whole numbers and from a fixed start: the same everywhere."""
    settled = _settled()
    ranks = np.empty(BLUE_SIDE**2, np.int64)
    falling, rising = settled.copy(), settled.copy()
    for rank in range(_FIRST - 1, -1, -1):
        ranks[falling.switch(falling.cluster())] = rank
    # His third phase fills the tightest cluster of dark pixels; on a torus that is the largest void again.
    for rank in range(_FIRST, ranks.size):
        ranks[rising.switch(rising.void())] = rank
    return ranks.reshape(BLUE_SIDE, BLUE_SIDE)


class _Pattern:
    """Lit pixels on a torus and how crowded each place is: a Gaussian of 1.5 pixels around every lit one."""

    def __init__(self, lit: NDArray[np.bool_], crowd: NDArray[np.int64]) -> None:
        self.lit, self.crowd = lit, crowd

    def copy(self) -> _Pattern:
        return _Pattern(self.lit.copy(), self.crowd.copy())

    def cluster(self) -> int:
        """The most crowded lit pixel."""
        return int(np.argmax(np.where(self.lit, self.crowd, -1)))

    def void(self) -> int:
        """The least crowded dark pixel."""
        return int(np.argmin(np.where(self.lit, np.iinfo(np.int64).max, self.crowd)))

    def switch(self, at: int) -> int:
        """Light the pixel `at` or put it out; says where."""
        around = np.roll(_gaussian(), divmod(at, BLUE_SIDE), (0, 1)).ravel()
        self.crowd += -around if self.lit[at] else around
        self.lit[at] = not self.lit[at]
        return at


@cache
def _gaussian() -> NDArray[np.int64]:
    """Around pixel 0 of the torus, in 2**-20."""
    distance = np.minimum(np.arange(BLUE_SIDE), BLUE_SIDE - np.arange(BLUE_SIDE))
    squares = distance[:, None] ** 2 + distance**2
    return np.asarray(np.rint(2**20 * np.exp(squares / (-2 * 1.5**2))), np.int64)


def _settled() -> _Pattern:
    """A random first pattern, its tightest cluster moved to its largest void until that changes nothing."""
    pattern = _Pattern(np.zeros(BLUE_SIDE**2, np.bool_), np.zeros(BLUE_SIDE**2, np.int64))
    for at in _first():
        pattern.switch(at)
    while pattern.switch(pattern.cluster()) != pattern.switch(pattern.void()):
        continue
    return pattern


def _first() -> list[int]:
    """Different places by a linear congruential generator (C's example rand): NumPy's streams may change."""
    places: dict[int, None] = {}
    state = 1
    while len(places) < _FIRST:
        state = (state * 1103515245 + 12345) % 2**31
        places[(state >> 16) % BLUE_SIDE**2] = None
    return list(places)
