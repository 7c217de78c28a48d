"""Random resizing and padding against the paper's code, written plainly."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from edgemask.masks.random_resize_pad import RandomResizePad
from edgemask_runtime.entropy import expand

from ..harness import Array, stepped
from ..mask_trials import PICTURES, SEED, entropy_for
from ..pictures import load, spec_of

XIE = RandomResizePad(grow=1.107, smallest=0.9366)
"""The submission to NIPS 2017: 299 to a size in [310, 331), padded to 331."""


def boxes(mask: RandomResizePad, height: int, width: int, draws: int) -> Array:
    """Top, left, height and width of the image in each of many draws: a white frame shows them."""
    entropy = expand(SEED, 9 * draws).reshape(draws, 9)
    white = np.full((1, height, width, 1), 255, np.uint8).repeat(draws, 0)
    shown = stepped(mask, white, entropy)[..., 0] == 255
    rows, columns = shown.any(2), shown.any(1)
    return np.stack([rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)], 1)


def placed(frame: Array, out: tuple[int, int], box: Array, fill: int) -> Array:
    """tf.image.resize_images with NEAREST_NEIGHBOR and tf.pad, as the paper's code calls them."""
    top, left, height, width = box
    y = np.full((*out, frame.shape[2]), fill)
    for i in range(height):
        for j in range(width):
            y[top + i, left + j] = frame[i * frame.shape[0] // height, j * frame.shape[1] // width]
    return y


@pytest.mark.parametrize(
    "mask", [RandomResizePad(), RandomResizePad(1.25, 0.25), RandomResizePad(1.1, 1.0, fill=7)], ids=str
)
@pytest.mark.parametrize("picture", PICTURES)
def test_it_is_a_nearest_resize_in_a_box(picture: str, mask: RandomResizePad) -> None:
    pixels = PICTURES[picture]
    height, width, channels = mask.spec(spec_of(pixels)).sample
    for seed in (SEED, bytes(32)):
        entropy = entropy_for(mask, pixels[None], seed)
        white = stepped(mask, np.full_like(pixels, 255)[None], entropy)[0, ..., 0] == 255
        rows, columns = white.any(1), white.any(0)
        box = np.array([rows.argmax(), columns.argmax(), rows.sum(), columns.sum()])
        np.testing.assert_array_equal(white, np.outer(rows, columns))
        y = stepped(mask, pixels[None], entropy)[0]
        assert y.shape == (height, width, channels)
        np.testing.assert_array_equal(y, placed(pixels, (height, width), box, mask.fill))


def test_the_papers_sizes_and_places() -> None:
    """Sizes even over [310, 331), each place in what is left equally likely."""
    found = boxes(XIE, 299, 299, 300)
    assert XIE.spec(spec_of(load("coffee.png")).resized(H=299, W=299)).sample == (331, 331, 3)
    top, left, height, width = found.T
    np.testing.assert_array_equal(height, width)
    assert scipy.stats.chisquare(np.bincount(height - 310, minlength=21)).pvalue > 1e-3
    assert height.min() == 310
    assert height.max() == 330
    for offset in (top, left):
        share = (offset + 0.5) / (331 - height + 1)
        assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3
    assert scipy.stats.pearsonr((top + 0.5) / (332 - height), (left + 0.5) / (332 - height)).pvalue > 1e-3


def test_places_are_even_at_each_size() -> None:
    """A frame of 20 keeps 18 or 19 of its rows and columns: 3 or 2 places each way."""
    top, left, height, _ = boxes(RandomResizePad(), 20, 20, 6000).T
    assert scipy.stats.binomtest(int((height == 18).sum()), 6000).pvalue > 1e-3
    for size, places in ((18, 3), (19, 2)):
        at = (top * places + left)[height == size]
        assert scipy.stats.chisquare(np.bincount(at, minlength=places**2)).pvalue > 1e-3


def test_both_sides_scale_alike() -> None:
    _, _, height, width = boxes(RandomResizePad(smallest=0.25), 60, 90, 500).T
    np.testing.assert_array_equal(height, width * 60 // 90)
    assert set(width) <= set(range(22, 90))
    assert len(set(width)) > 60


def test_the_entropy_decides() -> None:
    frame = load("coffee.png")[None]
    first = stepped(RandomResizePad(), frame, entropy_for(RandomResizePad(), frame))
    np.testing.assert_array_equal(first, stepped(RandomResizePad(), frame, entropy_for(RandomResizePad(), frame)))
    assert (first != stepped(RandomResizePad(), frame, entropy_for(RandomResizePad(), frame, bytes(32)))).mean() > 0.5
