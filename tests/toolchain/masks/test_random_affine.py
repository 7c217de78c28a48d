"""Random rotation, shear and shift against scipy's affine transform in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from edgemask.masks.random_affine import ANGLES, MAX_SIDE, SHEARS, RandomAffine, _bits
from edgemask.spec import Misfit, Spec
from edgemask_runtime.entropy import expand

from ..harness import INTERPRETERS, Array, stepped
from ..mask_trials import PICTURES, SEED, entropy_for
from ..pictures import load


def entropy_of(word: int, down: int = 0, right: int = 0) -> Array:
    """Three draws from 24-bit words."""
    return np.array([[value >> 8 * i & 255 for value in (word, down, right) for i in range(3)]], np.uint8)


def word_for(index: int, limit: int) -> int:
    """A word that draws `index` below `limit`: the middle of its share."""
    return int((index + 0.5) * 2**24 / limit)


def by_scipy(pixels: Array, degrees: float, shear: float, shift: tuple[int, int]) -> Array:
    """Output to source: turn about the centre, shear across, shift; the nearest pixel, edges repeated."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.array([[1, 0], [shear, 1]]) @ turn
    centre = (np.array(pixels.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre + shift
    planes = [
        scipy.ndimage.affine_transform(pixels[..., c], matrix, offset, order=0, mode="nearest")
        for c in range(pixels.shape[2])
    ]
    return np.stack(planes, -1)


@pytest.mark.parametrize("angle", [0, 5, 16, 27, 32])
@pytest.mark.parametrize("shear", [0, 8, 13, 16])
def test_it_is_scipys(angle: int, shear: int) -> None:
    """But for pixels whose source lies between two: at most 0.5 %, for matrices have 14 bits after the point."""
    mask, pixels = RandomAffine(degrees=20, shear=0.3, shift=0.1), load("coffee.png")
    most = round(pixels.shape[0] * 0.1), round(pixels.shape[1] * 0.1)
    down, right = most[0] + 7, most[1] - 11
    shifts = [word_for(at, 2 * reach + 1) for at, reach in zip((down, right), most, strict=True)]
    y = stepped(mask, pixels[None], entropy_of(word_for(angle * SHEARS + shear, ANGLES * SHEARS), *shifts))[0]
    expected = by_scipy(pixels, -20 + 40 * angle / 32, -0.3 + 0.6 * shear / 16, (7, -11))
    assert (y != expected).any(2).mean() < 0.005


@pytest.mark.parametrize("picture", PICTURES)
def test_the_middle_draw_changes_nothing(picture: str) -> None:
    middle = word_for(0, 1)
    pixels = PICTURES[picture][None]
    np.testing.assert_array_equal(stepped(RandomAffine(), pixels, entropy_of(middle, middle, middle)), pixels)


def test_a_shift_is_a_plain_shift() -> None:
    mask, pixels = RandomAffine(0, 0, 0.25), load("gravel.png")[:40, :60]
    for down, right in ((10, -15), (-10, 15), (3, 0)):
        words = word_for(0, 1), word_for(down + 10, 21), word_for(right + 15, 31)
        rows, columns = np.arange(40) + down, np.arange(60) + right
        expected = pixels[np.clip(rows, 0, 39)][:, np.clip(columns, 0, 59)]
        np.testing.assert_array_equal(stepped(mask, pixels[None], entropy_of(*words))[0], expected)


def test_shifts_are_even() -> None:
    """Where a dot goes when a frame of 10 shifts by up to 2 each way."""
    draws = 30_000
    entropy = expand(SEED, 9 * draws).reshape(draws, 9)
    dot = np.zeros((1, 10, 10, 1), np.uint8)
    dot[0, 5, 5] = 255
    seen = stepped(RandomAffine(0, 0, 0.2), dot.repeat(draws, 0), entropy).reshape(draws, 100)
    counts = np.bincount(seen.argmax(1), minlength=100).reshape(10, 10)[3:8, 3:8]
    assert counts.sum() == draws
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_turns_are_even() -> None:
    """A frame with a white left half, turned only: the slope of its edge counts the angles."""
    draws, half = 1500, np.zeros((1, 101, 101, 1), np.uint8)
    half[:, :, :50] = 255
    entropy = expand(SEED, 9 * draws).reshape(draws, 9)
    turned = stepped(RandomAffine(20, 0, 0), half.repeat(draws, 0), entropy)[..., 0] > 0
    lean = turned[:, 0].sum(1) - turned[:, 100].sum(1).astype(int)
    expected = [-100 * math.tan(math.radians(20 * i / 16 - 20)) for i in range(ANGLES)]
    angle = np.abs(lean[:, None] - np.array(expected)).argmin(1)
    assert scipy.stats.chisquare(np.bincount(angle, minlength=ANGLES)).pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 2, 224, 640, 1024, 1025, MAX_SIDE])
def test_coordinates_are_exact_in_float32(side: int) -> None:
    """Every partial sum, in units of the last bit, for the farthest pixel and the widest turns."""
    bits = _bits(side)
    turns = np.abs(RandomAffine(45, 0.5)._turns(bits).astype(np.float64)) * 2**bits
    np.testing.assert_array_equal(turns, np.rint(turns))
    assert (turns[:, 0::2] + turns[:, 1::2]).max() * (side - 1) + side * 2**bits <= 2**24
    assert bits >= 10


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_wide_turns_are_the_same_on_every_engine(interpreter: str) -> None:
    mask, frame = RandomAffine(45, 0.5, 0.25), load("coffee.png")[None]
    for seed in (bytes(32), b"\xff" * 32, SEED[::-1]):
        entropy = entropy_for(mask, frame, seed)
        np.testing.assert_array_equal(stepped(mask, frame, entropy, interpreter), stepped(mask, frame, entropy))


def test_a_frame_too_large_to_be_exact_is_refused() -> None:
    with pytest.raises(Misfit, match="needs sides up to 2048"):
        RandomAffine().spec(Spec.image(2049, 100, "rgb"))
