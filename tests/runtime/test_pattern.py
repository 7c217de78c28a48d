from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.cameras import open_camera
from edgemask_runtime.cameras.pattern import PatternSettings, number_in
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import YUV, pixels_of, planes_of
from edgemask_runtime.manifest import FrameInput

from .test_cameras import graph_frame

FORMATS: list[dict[str, Any]] = [
    *({"colour": colour} for colour in ("gray", "rgb", "bgra", "nv12", "i420", "yuyv")),
    *({"colour": colour, "stride": 224} for colour in ("gray", "nv12", "i420", "yuyv")),
    {"colour": "nv12", "matrix": "bt709", "range": "full"},
]


def pattern(frame: FrameInput, **settings: Any) -> Any:
    return open_camera("pattern", PatternSettings(**settings), frame)


@pytest.mark.parametrize("given", FORMATS)
def test_each_frame_carries_its_number_in_any_format(given: dict[str, Any]) -> None:
    frame = graph_frame(96, 64, **given)
    shots = list(pattern(frame, frames=300))
    for number in (0, 1, 42, 299):
        pixels = shots[number].read()
        assert pixels.shape == frame.shape
        assert pixels.dtype == np.uint8
        assert number_in(pixels, frame) == number


@pytest.mark.parametrize("colour", ["nv12", "i420", "yuyv", "rgb", "bgr"])
def test_it_moves_two_pixels_a_frame(colour: str) -> None:
    frame = graph_frame(96, 64, colour, stride=320)
    first, later = [shot.read() for shot in pattern(frame, frames=4)][::3]
    for plane, pixels in zip(planes(first, frame), planes(later, frame), strict=True):
        half, step = len(plane) // 2, 6 * plane.shape[1] // 96
        np.testing.assert_array_equal(np.roll(plane[half:], step, axis=1), pixels[half:])
        assert np.ptp(plane[half:]) > 60


def planes(buffer: Any, frame: FrameInput) -> Any:
    return planes_of(buffer, frame) if frame.colour in YUV else [pixels_of(buffer, frame)]


def test_the_number_survives_a_small_picture_and_a_coarse_jpeg(tmp_path: Any) -> None:
    frame = graph_frame(8, 8, "gray")
    assert number_in(list(pattern(frame, frames=70000))[-1].read(), frame) == 69999 % 2**16
    frame = graph_frame(320, 180, "rgb")
    Image.fromarray(list(pattern(frame, frames=77))[-1].read()).save(tmp_path / "a.jpg", quality=20)
    assert number_in(np.asarray(Image.open(tmp_path / "a.jpg")), frame) == 76


def test_it_goes_on_until_it_is_closed() -> None:
    camera = pattern(graph_frame(8, 8, "gray"))
    assert (camera.fps, camera.live) == (30, False)
    for number, _ in enumerate(camera):
        if number == 99:
            camera.close()
    assert number == 99


def test_a_frame_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="the test pattern needs 4x8 pixels, the graph takes 3x8"):
        pattern(graph_frame(3, 8, "gray"))
