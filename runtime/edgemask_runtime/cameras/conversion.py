"""A camera's buffer as the graph's frame: as it lies where it fits, else copied, else converted by FFmpeg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgemask_runtime.cameras.ffmpeg import PLANES, fitted, import_av
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import CHANNELS, Format, Pixels, assembled, plane_rows

FULL, LIMITED = 2, 1
FFMPEG_NAMES = {"gray": "gray", "rgb": "rgb24", "bgr": "bgr24", "rgba": "rgba", "bgra": "bgra"}
FFMPEG_MATRICES = {"bt601": 5, "bt709": 1}


def converter(given: Format, frame: Format) -> Callable[[memoryview], Pixels]:
    """What makes the graph's frame of a buffer in the camera's format.

    A view of the buffer, without a copy, where both formats are the same, padding too.
    """
    if given.settled() == frame.settled():
        return lambda buffer: _shaped(buffer, given)
    if _without_stride(given) == _without_stride(frame):
        return lambda buffer: _padded(_shaped(buffer, given), given, frame)
    av = _ffmpeg(given, frame)
    return lambda buffer: fitted(_picture(av, _shaped(buffer, given), given), frame)


def _shaped(buffer: memoryview, given: Format) -> Pixels:
    needed = int(np.prod(given.shape))
    if len(buffer) < needed:
        raise UserError(f"the camera's frame has {len(buffer)} bytes, {needed} were agreed on")
    return np.frombuffer(buffer, np.uint8, needed).reshape(given.shape)


def _without_stride(given: Format) -> Format:
    whole = given.settled()
    return Format(whole.width, whole.height, whole.colour, None, whole.matrix, whole.range)


def _padded(buffer: Pixels, given: Format, frame: Format) -> Pixels:
    """The rows without the padding of one format and with that of the other."""
    rows = plane_rows(buffer, given)
    if frame.raw:
        return assembled(rows, frame)
    return np.ascontiguousarray(rows[0]).reshape(frame.shape)


def _picture(av: Any, buffer: Pixels, given: Format) -> Any:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(_for_ffmpeg(buffer, given)), _name(given))
    if given.colour not in CHANNELS:
        picture.color_range = FULL if given.range == "full" else LIMITED
        picture.colorspace = FFMPEG_MATRICES[given.matrix or "bt601"]
    return picture


def _for_ffmpeg(buffer: Pixels, given: Format) -> Pixels:
    rows = plane_rows(buffer, given)
    if given.colour == "gray":
        return rows[0]
    if len(rows) == 1:
        return rows[0].reshape(given.height, given.width, -1)
    return np.concatenate([plane.ravel() for plane in rows]).reshape(-1, given.width)


def _name(given: Format) -> str:
    return PLANES[given.colour][0] if given.colour in PLANES else FFMPEG_NAMES[given.colour]


def _ffmpeg(given: Format, frame: Format) -> Any:
    try:
        return import_av("another format")
    except UserError as error:
        size, wanted = f"{given.width}x{given.height}", f"{frame.colour} {frame.width}x{frame.height}"
        hint = f"{error.hint}, or build the bundle for what the camera gives: it is free then"
        raise UserError(
            f"the camera gives {given.colour} {size}; {wanted} cannot be made of it without PyAV", hint
        ) from error
