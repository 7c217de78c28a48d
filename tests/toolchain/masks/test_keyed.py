"""The masks of AprilPyone and Kiya against plain loops over blocks, and what their keys decide."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edgemask.masks.bit_flip import BitFlip
from edgemask.masks.block_shuffle import BlockShuffle
from edgemask.masks.ffx_permutation import FfxPermutation
from edgemask.spec import Misfit, Spec
from edgemask.steps import KeyedMask

from ..harness import INTERPRETERS, Array, stepped
from ..pictures import cropped, spec_of

KEYED = (BlockShuffle, BitFlip, FfxPermutation)
SIZES = ((8, 12, 3), (7, 10, 3), (3, 2, 3), (5, 9, 1))


def key_of(mask: KeyedMask, frame: Array, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (1, mask.key_bytes(spec_of(frame[0]))), np.uint8)


def words_of(key: Array) -> list[int]:
    return [int.from_bytes(bytes(pair)) for pair in key.reshape(-1, 2)]


def rank(words: list[int], i: int) -> int:
    """The place of word i among all; of equal ones the first comes first."""
    return sum(word < words[i] or (word == words[i] and j < i) for j, word in enumerate(words))


def by_blocks(frame: Array, block: int) -> list[tuple[slice, slice]]:
    height, width = frame.shape[:2]
    return [(slice(y, y + block), slice(x, x + block)) for y in range(0, height, block) for x in range(0, width, block)]


def shuffled(frame: Array, words: list[int], block: int) -> Array:
    made = frame.copy()
    for at in by_blocks(frame, block):
        part = frame[at]
        kept = [words[(y * block + x) * frame.shape[2] + c] for y, x, c in np.ndindex(*part.shape)]
        flat = np.empty(part.size, np.uint8)
        for i, value in enumerate(part.ravel()):
            flat[rank(kept, i)] = value
        made[at] = flat.reshape(part.shape)
    return made


def at_chosen(frame: Array, words: list[int], block: int, replaced: Array) -> Array:
    """`replaced` where the position in its block has one of the greater words."""
    made = frame.copy()
    for y, x, c in np.ndindex(*frame.shape):
        i = ((y % block) * block + x % block) * frame.shape[2] + c
        if rank(words, i) >= len(words) // 2:
            made[y, x, c] = replaced[y, x, c]
    return made


def expected(mask: KeyedMask, frame: Array, words: list[int]) -> Array:
    """What the paper's loops make of one frame."""
    if isinstance(mask, BlockShuffle):
        return shuffled(frame, words, mask.block)
    if isinstance(mask, BitFlip):
        return at_chosen(frame, words, mask.block, frame ^ 255)
    assert isinstance(mask, FfxPermutation)
    table = np.array([rank(words[:256], value) for value in range(256)], np.uint8)
    return at_chosen(frame, words[256:], mask.block, table[frame])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("cls", KEYED)
def test_it_is_what_loops_over_blocks_make(cls: type[KeyedMask], block: int, size: tuple[int, int, int]) -> None:
    mask, frame = cls(block=block), np.random.default_rng(7).integers(0, 256, (1, *size), np.uint8)  # type: ignore[call-arg]
    key = key_of(mask, frame)
    np.testing.assert_array_equal(stepped(mask, frame, key)[0], expected(mask, frame[0], words_of(key)))


@pytest.mark.parametrize("interpreter", ["numpy", *INTERPRETERS])
@pytest.mark.parametrize("cls", KEYED)
def test_equal_words_and_the_greatest_are_told_apart(cls: type[KeyedMask], interpreter: str) -> None:
    """Words differ by their position alone: any rounding of them would merge two."""
    mask, frame = cls(block=8), cropped("coffee.png", 8, 8)[None]  # type: ignore[call-arg]
    key = np.repeat(np.uint8([[255, 0]]), mask.key_bytes(spec_of(frame[0])) // 2, 0).reshape(1, -1)
    key[:, 64:] = 255
    given = stepped(mask, frame, key, interpreter)[0]
    np.testing.assert_array_equal(given, expected(mask, frame[0], words_of(key)))


@pytest.mark.parametrize("cls", KEYED)
def test_another_key_gives_another_picture_and_loses_nothing(cls: type[KeyedMask]) -> None:
    mask, frame = cls(), np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    made = {stepped(mask, frame, key_of(mask, frame, seed)).astype(np.uint8).tobytes() for seed in range(50)}
    assert len(made) == 50
    if cls is BlockShuffle:
        assert all(sorted(picture) == list(range(48)) for picture in made)


def test_every_place_is_as_likely() -> None:
    """Where the first value goes, over 4,800 keys: 100 times to each of 48 places, within five standard deviations."""
    frames = np.zeros((4800, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = 1
    keys = np.random.default_rng(3).integers(0, 256, (4800, 96), np.uint8)
    places = Counter(stepped(BlockShuffle(), frames, keys).reshape(4800, 48).argmax(1).tolist())
    assert len(places) == 48
    assert all(abs(count - 100) < 50 for count in places.values())


def test_exactly_half_is_flipped() -> None:
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    flipped = stepped(BitFlip(), frame, key_of(BitFlip(), frame)).reshape(2, 4, 2, 12)
    assert (flipped == 255).sum() == flipped.size // 2
    assert (flipped == flipped[:1, :, :1]).all()


@pytest.mark.parametrize("cls", KEYED)
def test_the_key_is_as_long_as_the_block_and_not_the_frame(cls: type[KeyedMask]) -> None:
    small, large = (cls().key_bytes(Spec.image(side, side, "rgb")) for side in (4, 224))
    assert small == large == 96 + (512 if cls is FfxPermutation else 0)
    with pytest.raises(ValueError, match="asks for entropy or a key"):
        stepped(cls(), np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(Misfit):
        cls().spec(Spec("float32", Spec.image(4, 4, "rgb").axes))
