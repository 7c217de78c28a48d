"""The palette against Pillow's own nearest colour, plain distances and scipy's k-means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.cluster.vq
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask.errors import UserError
from edgemask.masks.palette import Palette, fit
from edgemask.recipe import parse_recipe

from ..harness import Array, stepped
from ..mask_trials import SMALL
from ..pictures import RGB, cropped

COLOURS = st.lists(st.integers(0, 0xFFFFFF), min_size=1, max_size=64)


def unpacked(colours: tuple[int, ...] | list[int]) -> Array:
    return np.array([list(colour.to_bytes(3, "big")) for colour in colours])


def by_distance(frame: Array, codes: Array) -> Array:
    """The first nearest code, each distance in whole numbers."""
    distances = ((frame[..., None, :].astype(int) - codes) ** 2).sum(-1)
    return np.asarray(codes[distances.argmin(-1)])


@settings(max_examples=60, deadline=None)
@given(frame=SMALL, colours=COLOURS)
def test_every_pixel_takes_the_first_nearest_colour(frame: Array, colours: list[int]) -> None:
    mask, codes = Palette(tuple(colours)), unpacked(colours)
    if frame.shape[-1] == 1:
        codes = np.floor(codes.mean(1, keepdims=True) + 0.5).astype(int)
    for interpreter in ("numpy", "onnx-13", "tflite"):
        np.testing.assert_array_equal(stepped(mask, frame, None, interpreter), by_distance(frame, codes))


def test_equally_near_colours_do_not_add_up() -> None:
    gray = np.full((1, 2, 2, 3), 127, np.uint8)
    np.testing.assert_array_equal(stepped(Palette((0x7E7E7E, 0x808080, 0x7E7E7E)), gray), gray - 1)


def test_the_default_is_html_4s() -> None:
    colours = {tuple(colour) for colour in stepped(Palette(), cropped("coffee.png", 64, 64)[None]).reshape(-1, 3)}
    named = {(r, g, b) for r in (0, 128) for g in (0, 128) for b in (0, 128)} | {(192, 192, 192)}
    assert colours <= named | {(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)}


def test_fit_finds_the_colours_that_there_are() -> None:
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 90, 250], [255, 255, 255]], np.uint8)
    image = colours[np.random.default_rng(3).integers(0, 4, (20, 30))]
    assert sorted(map(tuple, unpacked(fit([image], 4, 0).colours))) == sorted(map(tuple, colours.tolist()))
    assert len(fit([image], 64, 0).colours) == 4


@pytest.mark.parametrize("colours", [8, 32])
def test_fit_is_as_good_as_scipys_kmeans(colours: int) -> None:
    images = [cropped(name, 64, 64) for name in RGB]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])

    def error(codes: Array) -> float:
        return float(((pixels - by_distance(pixels, codes)) ** 2).sum(1).mean())

    theirs, _ = scipy.cluster.vq.kmeans2(pixels.astype(float), colours, minit="++", rng=np.random.default_rng(1))
    ours = fit(images, colours, 1)
    assert error(unpacked(ours.colours)) <= 1.15 * error(np.rint(theirs).astype(int))
    assert ours == fit(images, colours, 1)


def test_fit_takes_gray_images() -> None:
    codes = unpacked(fit([cropped("gravel.png", 64, 64)], 5, 0).colours)
    assert len(codes) == 5
    assert (codes == codes[:, :1]).all()


@pytest.mark.parametrize("colours", [0, 65])
def test_fit_refuses_what_a_palette_cannot_hold(colours: int) -> None:
    with pytest.raises(UserError, match=f"{colours} colours"):
        fit([cropped("cat.png", 8, 8)], colours, 0)


RECIPE = """
schema = 1
name = "few"
model = {{file = "m.onnx"}}
frame = {{width = 8, height = 8, colour = "rgb"}}
steps = [{{kind = "palette", colours = {colours}}}]
"""


def test_a_recipe_holds_the_fitted_palette() -> None:
    fitted = fit([cropped("cat.png", 64, 64)], 12, 0)
    text = ", ".join(f"0x{colour:06X}" for colour in fitted.colours)
    assert parse_recipe(RECIPE.format(colours=f"[{text}]"), Path("edgemask.toml")).steps == (fitted,)


@pytest.mark.parametrize("colours", ["[0x1000000]", "[-1]", str([0] * 65)])
def test_a_recipe_with_no_colours_is_refused(colours: str) -> None:
    with pytest.raises(UserError, match=r"steps\[0\]\.colours"):
        parse_recipe(RECIPE.format(colours=colours), Path("edgemask.toml"))
