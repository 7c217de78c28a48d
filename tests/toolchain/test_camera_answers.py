"""A trained classifier on a lossy video: fed the decoder's planes, it answers as the usual RGB pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import edgemask
from edgemask.models import read_model
from edgemask.recipe import parse_recipe
from edgemask_runtime.cameras import open_source

from .files import FOLDER
from .pictures import FOLDER as IMAGES

SIDE, GARMENTS = 160, sorted((IMAGES / "fashion").glob("*.png"))
MODEL = FOLDER / "keras_float.tflite"
RECIPE = """
schema = 1
name = "garments"
[model]
file = "{model}"
[frame]
width = {side}
height = {side}
{frame}
{steps}
[[steps]]
kind = "normalise"
"""
RESIZE = '[[steps]]\nkind = "{kind}"\nwidth = 32\nheight = 32\nlike = "pillow"\n'
RGB = '[[steps]]\nkind = "rgb"\n'
DECODED, PLANES = RGB + RESIZE.format(kind="resize"), RESIZE.format(kind="resize-planes") + RGB


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten garments, tinted so that colours matter, as MPEG-4 Part 2, 4:2:0."""
    path = tmp_path_factory.mktemp("garments") / "garments.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIDE, SIDE, "yuv420p", 4_000_000
        for number, garment in enumerate(GARMENTS):
            picture = Image.open(garment).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            tint = 1 - 0.15 * np.array([number % 2, number % 3 == 0, number % 5 == 0])
            container.mux(stream.encode(av.VideoFrame.from_image(Image.fromarray((picture * tint).astype(np.uint8)))))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def usual(video: Path) -> np.ndarray[Any, Any]:
    """FFmpeg to RGB, Pillow to the model's size, pixels / 255, the model on its own engine."""
    engine = read_model(MODEL).open()
    answers = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            small = frame.to_image().resize((32, 32), Image.Resampling.BILINEAR)
            answers.append(engine.run({engine.inputs[0].name: (np.asarray(small) / np.float32(255))[None]}))
    return np.concatenate([next(iter(answer.values())) for answer in answers])


@pytest.mark.parametrize("steps", [DECODED, PLANES], ids=["decoded", "planes"])
@pytest.mark.parametrize(
    "frame",
    [
        'colour = "nv12"',
        'colour = "nv12"\nmatrix = "bt709"\nrange = "full"\nstride = 192',
        'colour = "yuyv"',
        'colour = "i420"\nstride = 176',
    ],
    ids=["nv12", "nv12 full 709 padded", "yuyv", "i420 padded"],
)
def test_planes_are_answered_as_rgb_is(video: Path, usual: np.ndarray[Any, Any], frame: str, steps: str) -> None:
    text = RECIPE.format(model=MODEL, side=SIDE, frame=frame, steps=steps)
    artefact = edgemask.bake(recipe=parse_recipe(text, Path("edgemask.toml"))).artefact
    engine = artefact.model.open()
    shots = open_source(video, artefact.label.frame)
    given = np.concatenate([engine.run({"frame": shot.read()[None]})["probabilities"] for shot in shots])
    assert len(given) == len(GARMENTS)
    np.testing.assert_array_equal(given.argmax(1), usual.argmax(1))
    np.testing.assert_allclose(given, usual, atol=0.08)
    assert len(set(usual.argmax(1))) >= 5
