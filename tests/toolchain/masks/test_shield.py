"""Stochastic local quantisation against JPEG at each quality, our own and Pillow's."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from PIL import Image

from edgemask.masks.jpeg import Jpeg
from edgemask.masks.shield import Shield
from edgemask.ops.numpy import NumpyOps
from edgemask.spec import Spec
from edgemask_runtime.entropy import expand

from ..harness import Array, stepped
from ..mask_trials import PICTURES, SEED, entropy_for
from ..pictures import load, spec_of


def spread(blocks: Array, height: int, width: int) -> Array:
    """A number for each block, at each of its pixels."""
    grid = blocks.reshape(-(-height // 8), -(-width // 8))
    return grid.repeat(8, 0).repeat(8, 1)[:height, :width]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("picture", PICTURES)
def test_one_quality_everywhere_is_jpeg(picture: str, number: int) -> None:
    pixels = PICTURES[picture][None]
    entropy = np.full((1, Shield().entropy_bytes(spec_of(pixels[0]))), 64 * number + 17, np.uint8)
    np.testing.assert_array_equal(stepped(Shield(), pixels, entropy), stepped(Jpeg(20 + 20 * number), pixels))


@pytest.mark.parametrize("mask", [Shield(), Shield(10, 55), Shield(90, 30)], ids=str)
@pytest.mark.parametrize("picture", PICTURES)
def test_each_block_is_jpegs_at_its_quality(picture: str, mask: Shield) -> None:
    """The paper's way: compress the whole frame at every quality and pick blocks."""
    pixels = PICTURES[picture]
    entropy = entropy_for(mask, pixels[None])
    assert entropy is not None
    drawn = spread(entropy[0] // 64, *pixels.shape[:2])
    step = (mask.highest - mask.lowest) // 3
    frames = [stepped(Jpeg(mask.lowest + step * number), pixels[None])[0] for number in range(4)]
    expected = np.choose(drawn[..., None], frames)
    np.testing.assert_array_equal(stepped(mask, pixels[None], entropy)[0], expected)


def test_each_block_is_pillows_at_its_quality() -> None:
    """Pillow rounds the planes of YCbCr to whole numbers on both ways, which we do not."""
    pixels = load("coffee.png")
    entropy = entropy_for(Shield(), pixels[None])
    assert entropy is not None
    theirs = []
    for quality in (20, 40, 60, 80):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:4:4")
        theirs.append(np.asarray(Image.open(file)).astype(float))
    ours, drawn = stepped(Shield(), pixels[None], entropy)[0], spread(entropy[0] // 64, 224, 224)
    for number, expected in enumerate(theirs):
        near, far = ours[drawn == number], ours[drawn != number]
        assert np.abs(near - expected[drawn == number]).mean() <= 1.2
        assert np.abs(far - expected[drawn != number]).mean() > 1.5


def test_qualities_are_even_and_blocks_free_of_each_other() -> None:
    """A white dot in every black block: each quality leaves another value there."""
    frame = np.zeros((1, 800, 800, 1), np.uint8)
    frame[:, 4::8, 4::8] = 255
    y = stepped(Shield(), frame, entropy_for(Shield(), frame))[0, 4::8, 4::8, 0]
    values, counts = np.unique(y, return_counts=True)
    assert len(values) == 4
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    pairs = np.unique(np.stack([y[:, :-1].ravel(), y[:, 1:].ravel()]), axis=1, return_counts=True)[1]
    assert len(pairs) == 16
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3


class CheckedOps(NumpyOps):
    """Asserts of every matrix product that float32 holds it exactly, whatever the order of summation."""

    def matmul(self, x: Array, weights: NDArray[np.float32]) -> Array:
        y = super().matmul(x, weights)
        np.testing.assert_array_equal(y, x.astype(np.float64) @ weights.astype(np.float64))
        np.testing.assert_array_equal(y, super().matmul(x[..., ::-1], weights[::-1]))
        return y


@pytest.mark.parametrize("channels", [1, 3])
def test_its_products_are_exact_at_every_quality(channels: int) -> None:
    frame = np.random.default_rng(7).choice(np.array([0, 255], np.uint8), (1, 64, 64, channels))
    entropy = expand(SEED, 64)[None]
    for lowest in range(1, 101, 3):
        Shield(lowest, 101 - lowest).build(CheckedOps(), frame, entropy)


def test_it_needs_a_byte_a_block() -> None:
    assert Shield().entropy_bytes(Spec.image(224, 224, "rgb")) == 28 * 28
    assert Shield().entropy_bytes(Spec.image(9, 17, "gray")) == 2 * 3
