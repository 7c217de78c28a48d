"""Frame steps: the same on every engine, and what Pillow, scipy or float64 says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edgemask.errors import UserError
from edgemask.frame.colour import Bgr, Gray, Rgb
from edgemask.frame.normalise import Normalise
from edgemask.frame.resize import Resize
from edgemask.spec import Spec
from edgemask.steps import FrameStep, registry

from .harness import INTERPRETERS, Array, stepped
from .pictures import RGB, Pixels, cropped, load, spec_of

SIZES = ((224, 224), (91, 113), (33, 37), (300, 401))
IMAGENET = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STEPS: dict[str, tuple[FrameStep, Pixels]] = {
    "rgb to bgr": (Bgr("rgb"), load("cat.png")),
    "bgr to rgb": (Rgb("bgr"), load("cat.png")),
    "gray to rgb": (Rgb("gray"), load("grass.png")),
    "rgb to gray": (Gray("rgb"), load("rocket.jpg")),
    "bgr to gray": (Gray("bgr"), load("rocket.jpg")),
    "normalise": (IMAGENET, load("coffee.png")),
    "normalise gray": (Normalise(), load("gravel.png")),
    "nearest up": (Resize(401, 300, "nearest"), load("cat.png")),
    "nearest down": (Resize(113, 91, "nearest"), load("rocket.jpg")),
    "bilinear up": (Resize(401, 300), load("cat.png")),
    "bilinear up, where 213 * float32(224 / 213) < 224": (Resize(224, 224), load("rocket.jpg")),
    "bilinear down": (Resize(113, 91), load("rocket.jpg")),
    "bilinear to halves": (Resize(75, 50), load("cat.png")),
    "bilinear gray": (Resize(97, 201), load("bricks.png")),
}
FRAMES = arrays(np.uint8, st.tuples(st.just(1), st.integers(1, 30), st.integers(1, 30), st.just(3)))
SIDES = st.integers(1, 40)


def test_every_frame_step_is_tried() -> None:
    kinds = {kind for kind, cls in registry().items() if cls.role == "frame"}
    assert {step.kind for step, _ in STEPS.values()} == kinds


@pytest.mark.parametrize("name", STEPS)
def test_engines_give_what_numpy_gives(name: str) -> None:
    step, pixels = STEPS[name]
    frames = np.stack([pixels, pixels[::-1]])
    expected = stepped(step, frames)
    for interpreter in INTERPRETERS:
        np.testing.assert_array_equal(stepped(step, frames, None, interpreter), expected, err_msg=interpreter)


@pytest.mark.parametrize("name", STEPS)
def test_the_spec_says_what_comes_out(name: str) -> None:
    step, pixels = STEPS[name]
    colour = getattr(step, "source", None) or ("rgb" if pixels.shape[2] == 3 else "gray")
    spec, y = step.spec(spec_of(pixels, colour)), stepped(step, pixels[None])
    assert y.shape[1:] == spec.sample
    assert spec.range is not None
    assert spec.range[0] - 1e-6 <= y.min() <= y.max() <= spec.range[1] + 1e-6


@settings(max_examples=25, deadline=None)
@given(frame=FRAMES, height=SIDES, width=SIDES, interpolation=st.sampled_from(["bilinear", "nearest"]))
def test_resize_is_the_same_on_every_engine(frame: Array, height: int, width: int, interpolation: str) -> None:
    step = Resize(width, height, interpolation)  # type: ignore[arg-type]
    expected = stepped(step, frame)
    for interpreter in ("onnx-13", "tflite"):
        np.testing.assert_array_equal(stepped(step, frame, None, interpreter), expected)


def between_pixels(pixels: Array, height: int, width: int) -> Array:
    """Linear interpolation at half-pixel centres, edges repeated outwards, not rounded."""
    rows = (np.arange(height) + 0.5) * pixels.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * pixels.shape[1] / width - 0.5
    at = np.meshgrid(rows, columns, indexing="ij")
    planes = np.moveaxis(pixels.astype(float), 2, 0)
    return np.stack([scipy.ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in planes], axis=-1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", RGB)
def test_bilinear_is_scipys(name: str, height: int, width: int) -> None:
    pixels = load(name)
    expected = between_pixels(pixels, height, width)
    y = stepped(Resize(width, height), pixels[None])[0]
    assert np.abs(y - expected).max() <= 0.6
    assert (y != np.floor(expected + 0.5)).mean() < 0.01


@settings(max_examples=50, deadline=None)
@given(frame=FRAMES, height=SIDES, width=SIDES)
def test_bilinear_of_small_frames_is_scipys(frame: Array, height: int, width: int) -> None:
    y = stepped(Resize(width, height), frame)[0]
    assert np.abs(y - between_pixels(frame[0], height, width)).max() <= 0.6
    np.testing.assert_array_equal(y, np.rint(y))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", RGB)
def test_nearest_is_pillows(name: str, height: int, width: int) -> None:
    pixels = load(name)
    expected = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST))
    y = stepped(Resize(width, height, "nearest"), pixels[None])[0]
    rows, columns = inside(pixels.shape[0], height), inside(pixels.shape[1], width)
    assert rows.mean() > 0.8
    assert columns.mean() > 0.8
    np.testing.assert_array_equal(y[rows][:, columns], expected[rows][:, columns])


def inside(size: int, new_size: int) -> Array:
    """Where the new centres lie inside a pixel, and not on the border of two (where Pillow adds up float errors)."""
    return (2 * np.arange(new_size) + 1) * size % (2 * new_size) != 0


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 600), new_size=st.integers(1, 600))
def test_nearest_takes_the_pixel_that_holds_the_centre(size: int, new_size: int) -> None:
    row = np.arange(size, dtype=np.int32).reshape(1, 1, size, 1)
    picked = stepped(Resize(new_size, 1, "nearest"), row).ravel()
    centres = (np.arange(new_size) + 0.5) * size / new_size
    assert ((picked <= centres) & (centres <= picked + 1)).all()


@pytest.mark.parametrize("name", RGB)
def test_gray_is_pillows(name: str) -> None:
    pixels = load(name)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(stepped(Gray("rgb"), pixels[None])[0, ..., 0], expected)
    np.testing.assert_array_equal(stepped(Gray("bgr"), pixels[None, ..., ::-1])[0, ..., 0], expected)


@settings(max_examples=50, deadline=None)
@given(frame=FRAMES)
def test_gray_of_any_colours_is_pillows(frame: Array) -> None:
    expected = np.asarray(Image.fromarray(frame[0]).convert("L"))
    np.testing.assert_array_equal(stepped(Gray("rgb"), frame)[0, ..., 0], expected)


def test_colour_orders() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(stepped(Bgr("rgb"), pixels)[0, 0, 0], [2, 1, 0])
    np.testing.assert_array_equal(stepped(Rgb("bgr"), pixels)[0, 0, 0], [2, 1, 0])
    np.testing.assert_array_equal(stepped(Rgb("rgb"), pixels), pixels)
    np.testing.assert_array_equal(stepped(Bgr("gray"), pixels[..., :1])[0, 1, 1], [9, 9, 9])


@settings(max_examples=50, deadline=None)
@given(
    frame=FRAMES,
    scale=st.floats(1e-3, 2),
    mean=st.tuples(*[st.floats(-2, 2)] * 3),
    std=st.tuples(*[st.floats(0.01, 100)] * 3),
)
def test_normalise_is_float64s_to_a_millionth(
    frame: Array, scale: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    y = stepped(Normalise(scale, mean, std), frame)
    scaled = frame * scale
    terms = (scaled + np.abs(mean)) / std
    np.testing.assert_array_less(np.abs(y - (scaled - mean) / std), 1e-6 * terms + 1e-30)


def test_normalise_takes_one_number_for_all_channels() -> None:
    frame = cropped("coffee.png", 5, 5)[None]
    each = Normalise(mean=(0.5,) * 3, std=(0.25,) * 3)
    np.testing.assert_array_equal(stepped(Normalise(mean=(0.5,), std=(0.25,)), frame), stepped(each, frame))


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Normalise(mean=(0.5, 0.5)), "2 numbers in mean, gets 3 channels"),
        (Normalise(std=(0.5,) * 4), "4 numbers in std, gets 3 channels"),
        (Rgb("gray"), "needs gray, gets 8×8×3 uint8 rgb"),
        (Gray(), "needs a known colour order"),
    ],
)
def test_what_does_not_fit_is_said(step: FrameStep, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        step.spec(Spec.image(8, 8, "rgb"))


def test_the_source_of_a_colour_is_the_frames_own() -> None:
    assert Gray().fit(Spec.image(8, 8, "bgr")) == Gray("bgr")
    assert Gray("rgb").fit(Spec.image(8, 8, "bgr")) == Gray("rgb")
