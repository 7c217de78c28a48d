"""Random subsets of masks against the masks applied one by one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from edgemask.masks.bart import Bart
from edgemask.ops.protocol import Ops, T
from edgemask.spec import Misfit, Spec
from edgemask.steps import Mask
from edgemask_runtime.entropy import expand

from ..harness import Array, stepped
from ..mask_trials import PICTURES, SEED, entropy_for, mask_of
from ..pictures import load, spec_of

SMALL = Spec.image(8, 8, "rgb")


def members(bart: Bart) -> list[Mask]:
    return [mask_of(text) for text in bart.group.split("+")]


def chosen(bart: Bart, entropy: Array) -> list[int]:
    """Knuth's algorithm S (The Art of Computer Programming 2, 3.4.2), on 24-bit words, lowest byte first."""
    count, taken = len(members(bart)), list[int]()
    for index in range(count):
        word = int.from_bytes(entropy[3 * index : 3 * index + 3].tobytes(), "little")
        if (count - index) * word // 2**24 < bart.k - len(taken):
            taken.append(index)
    return taken


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("picture", PICTURES)
def test_it_is_the_drawn_masks_one_after_the_other(picture: str, k: int) -> None:
    bart, pixels = Bart(k=k), PICTURES[picture]
    for seed in (SEED, bytes(32), b"\x5a" * 32):
        entropy = entropy_for(bart, pixels[None], seed)
        assert entropy is not None
        taken, begin, y = chosen(bart, entropy[0]), 3 * 6, pixels[None]
        for index, mask in enumerate(members(bart)):
            end = begin + mask.entropy_bytes(spec_of(pixels))
            if index in taken:
                y = stepped(mask, y, entropy[:, begin:end] if end > begin else None)
            begin = end
        assert begin == entropy.shape[1]
        assert len(taken) == k
        np.testing.assert_array_equal(stepped(bart, pixels[None], entropy), y)


@dataclass(frozen=True)
class Mark(Mask):
    """Leaves a bit of its own in every value."""

    bit: int = 0

    def spec(self, x: Spec) -> Spec:
        return x

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        return ops.add(x, 2.0**self.bit)


class Marks(Bart):
    """A group of five marks: the value left tells which were drawn."""

    def _masks(self) -> list[Mask]:
        return [Mark(bit) for bit in range(5)]


@pytest.mark.parametrize("k", range(1, 6))
def test_each_subset_is_equally_likely(k: int) -> None:
    draws = 20_000
    entropy = expand(SEED, 15 * draws).reshape(draws, 15)
    seen = stepped(Marks(k=k), np.zeros((draws, 1, 1, 1), np.uint8), entropy).ravel()
    counts = [int((seen == sum(2**bit for bit in bits)).sum()) for bits in combinations(range(5), k)]
    assert sum(counts) == draws
    assert k == 5 or scipy.stats.chisquare(counts).pvalue > 1e-3


def test_the_entropy_decides() -> None:
    frame = load("coffee.png")[None]
    first, again = (stepped(Bart(), frame, entropy_for(Bart(), frame)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != stepped(Bart(), frame, entropy_for(Bart(), frame, bytes(32)))).mean() > 0.5


@pytest.mark.parametrize(
    ("bart", "message"),
    [
        (Bart("median", 2), "draws 2 of 1 masks"),
        (Bart("median+thermometer"), "draws 3 of 2"),
        (Bart("median+thermometer", 1), "cannot draw thermometer"),
        (Bart("median+random-resize-pad:grow=1.25", 1), "cannot draw random-resize-pad"),
        (Bart("median+block-shuffle", 1), "cannot draw block-shuffle"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(bart: Bart, message: str) -> None:
    with pytest.raises(Misfit, match=message):
        bart.spec(SMALL)
