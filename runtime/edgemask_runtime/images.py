"""Read image files into the uint8 HWC arrays that a graph's `frame` takes."""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import read_bytes
from edgemask_runtime.formats import (
    YUV,
    Colour,
    Format,
    Pixels,
    assembled,
    colours_of,
    encoded,
    pixels_of,
    planes_of,
)

SUFFIXES = frozenset({".pgm", ".ppm", ".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256_000_000
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# Pillow clips these to 8 bits instead of scaling them.
DEEP_MODES = ("I", "F")
NETPBM_GAP = rb"(?:\s|#[^\n]*\n)+"
NETPBM_HEADER = re.compile(rb"P([56])" + (NETPBM_GAP + rb"(\d{1,6})") * 3 + rb"\s")


@dataclass(frozen=True)
class Picture:
    """An image as uint8 HWC, or in a camera's format; `resized_from`: (height, width) of a file of another size."""

    pixels: Pixels
    resized_from: tuple[int, int] | None


def read_image(source: Path | str | bytes, *, width: int, height: int, colour: Colour) -> Picture:
    """Read a file, or its bytes, at the size and colour order asked; UserError when it is no readable image."""
    name = "image" if isinstance(source, bytes) else str(source)
    return _fitted(_decoded(source, name), width, height, colour, name)


def read_frame(source: Path | str | bytes, wanted: Format, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a file, or its bytes, as the camera of this format would deliver what it shows."""
    name = "image" if isinstance(source, bytes) else str(source)
    return frame_of(_decoded(source, name, max_pixels), wanted, name)


def frame_of(pixels: Pixels, wanted: Format, name: str = "image") -> Picture:
    """Pixels HWC, gray or RGB, as the camera of this format would deliver what they show."""
    colour: Colour = "rgb" if wanted.colour in YUV else wanted.colour
    picture = _fitted(pixels, wanted.width, wanted.height, colour, name)
    return Picture(in_format(picture.pixels, wanted), picture.resized_from)


def in_format(pixels: Pixels, wanted: Format) -> Pixels:
    """Pixels HWC of the format's own size, RGB where it is YUV and of its own colour otherwise, as its frame."""
    if wanted.colour in YUV:
        return encoded(pixels, wanted)
    return assembled([pixels.reshape(wanted.height, -1)], wanted) if wanted.raw else pixels


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode PGM or PPM with numpy alone, anything else with Pillow, to uint8 HWC gray or RGB."""
    if content[:2] in (b"P5", b"P6"):
        return _decode_netpbm(content, name, max_pixels)
    return _decode_with_pillow(content, name, max_pixels)


def recolour(pixels: Pixels, colour: Colour) -> Pixels:
    """Turn gray or RGB pixels into the colour asked; gray is BT.601 luma in Pillow's integers, alpha is 255."""
    if colour == "gray":
        return pixels if pixels.shape[2] == 1 else _luma(pixels)
    rgb = pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    ordered = rgb if colour in ("rgb", "rgba") else np.ascontiguousarray(rgb[:, :, ::-1])
    return np.insert(ordered, 3, 255, axis=2) if colour in ("rgba", "bgra") else ordered


def picture_of(frame: Pixels, camera: Format) -> Pixels:
    """What a frame of this format shows, uint8 HWC, gray or RGB; pixels that share colour differences all have them."""
    if camera.colour not in YUV:
        order = slice(2, None, -1) if camera.colour in ("bgr", "bgra") else slice(3)
        return np.ascontiguousarray(pixels_of(frame, camera)[..., order])
    luma, chroma = planes_of(frame, camera)
    rows, columns = YUV[camera.colour]
    return colours_of(np.concatenate([luma, chroma.repeat(rows, 0).repeat(columns, 1)], 2), camera)


def encoded_picture(pixels: Pixels, form: Literal["jpeg", "png"], quality: int = 90) -> bytes:
    """Pixels HWC, gray or RGB, as a file; UserError where Pillow is missing."""
    pillow = _pillow(f"a {form} cannot be written without Pillow")
    image = pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    written = io.BytesIO()
    image.save(written, form, **({"quality": quality} if form == "jpeg" else {"compress_level": 1}))
    return written.getvalue()


def list_images(path: Path | str, *, recursive: bool = False) -> list[Path]:
    """Return the image files of a folder, sorted, or the one file; UserError when there is none."""
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{root}: no such file or folder")
    found = sorted(_images_in(root, recursive))
    if not found:
        raise UserError(f"{root}: no images in this folder", hint=f"it takes {', '.join(sorted(SUFFIXES))}")
    return found


def _decoded(source: Path | str | bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    content = source if isinstance(source, bytes) else read_bytes(Path(source), limit_bytes=MAX_FILE_BYTES)
    return decode_image(content, name, max_pixels)


def _fitted(pixels: Pixels, width: int, height: int, colour: Colour, name: str) -> Picture:
    ordered = recolour(pixels, colour)
    if ordered.shape[:2] == (height, width):
        return Picture(ordered, None)
    return Picture(_resize(ordered, width, height, name), (ordered.shape[0], ordered.shape[1]))


def _images_in(root: Path, recursive: bool) -> Iterator[Path]:
    for entry in root.rglob("*") if recursive else root.iterdir():
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file():
            yield entry


def _luma(rgb: Pixels) -> Pixels:
    weighted = rgb.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    luma: Pixels = ((weighted + 0x8000) >> 16).astype(np.uint8)
    return luma[:, :, None]


def _decode_netpbm(content: bytes, name: str, max_pixels: int) -> Pixels:
    header = NETPBM_HEADER.match(content[:4096])
    if header is None:
        raise UserError(f"{name}: no valid PGM or PPM header")
    channels = 1 if header[1] == b"5" else 3
    width, height, peak = (int(header[group]) for group in (2, 3, 4))
    _check_size(width, height, name, max_pixels)
    if not 1 <= peak <= 255:
        raise UserError(f"{name}: {peak} grey levels; only 8-bit PGM and PPM are read", hint="convert it to 8 bits")
    if len(content) - header.end() < width * height * channels:
        raise UserError(f"{name}: truncated: the header promises {width}x{height} pixels")
    samples = np.frombuffer(content, np.uint8, width * height * channels, header.end())
    return _full_range(samples.reshape(height, width, channels), peak)


def _full_range(pixels: Pixels, peak: int) -> Pixels:
    if peak == 255:
        return pixels
    scaled: Pixels = np.minimum(np.rint(pixels * (255.0 / peak)), 255).astype(np.uint8)
    return scaled


def _decode_with_pillow(content: bytes, name: str, max_pixels: int) -> Pixels:
    pillow = _pillow(f"{name}: cannot be read without Pillow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(content), formats=PILLOW_FORMATS) as image:
                return _pixels_of(image, name, max_pixels)
    except UserError:
        raise
    except pillow.UnidentifiedImageError as error:
        # Why not its own words: they have an object's address in them.
        raise UserError(f"{name}: not a readable image: none of {', '.join(PILLOW_FORMATS)}") from error
    # A decoder fed with a broken file raises nearly anything: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        raise UserError(f"{name}: not a readable image: {one_line(error)}") from error


def _pixels_of(image: Any, name: str, max_pixels: int) -> Pixels:
    _check_size(image.width, image.height, name, max_pixels)
    if image.mode.startswith(DEEP_MODES):
        raise UserError(f"{name}: more than 8 bits a channel", hint="convert it to 8 bits")
    gray = image.mode in ("1", "L", "LA")
    pixels: Pixels = np.asarray(image.convert("L" if gray else "RGB"), np.uint8)
    return pixels[:, :, None] if gray else pixels


def _resize(pixels: Pixels, width: int, height: int, name: str) -> Pixels:
    found = f"{pixels.shape[1]}x{pixels.shape[0]}"
    pillow = _pillow(f"{name}: {found}, the graph takes {width}x{height}, and resizing needs Pillow")
    image = pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized: Pixels = np.asarray(image.resize((width, height), pillow.Resampling.BILINEAR), np.uint8)
    return resized.reshape(height, width, pixels.shape[2])


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1 or width * height > max_pixels:
        raise UserError(f"{name}: {width}x{height} pixels; between 1 and {max_pixels} are read")


def _pillow(why: str) -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise UserError(why, hint="pip install 'edgemask-runtime[images]'") from error
