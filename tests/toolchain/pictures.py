"""The real images that masks and frame steps are tried on: of many sizes, colour and gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.spec import Colour, Spec

FOLDER = Path(__file__).parent.parent / "images"
Pixels = NDArray[np.uint8]

RGB = ("coffee.png", "retina.png", "galaxies.png", "cat.png", "rocket.jpg")
GRAY = ("bricks.png", "gravel.png", "grass.png")


def load(name: str) -> Pixels:
    """A whole image, H x W x C."""
    pixels = np.asarray(Image.open(FOLDER / name))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def cropped(name: str, height: int, width: int) -> Pixels:
    """The middle of an image."""
    pixels = load(name)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def fashion() -> list[Pixels]:
    """The ten garments, 32 x 32 RGB, in the order of their labels."""
    return [np.asarray(Image.open(path)) for path in sorted((FOLDER / "fashion").glob("*.png"))]


def spec_of(pixels: Pixels, colour: Colour | None = None) -> Spec:
    """The spec of an image."""
    height, width, channels = pixels.shape
    return Spec.image(height, width, colour or ("rgb" if channels == 3 else "gray"))
