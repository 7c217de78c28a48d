"""One JPEG of a camera into the graph's frame: libjpeg-turbo for pixels, FFmpeg where the graph takes YUV."""

from __future__ import annotations

import importlib
from typing import Any

from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.formats import Format, Pixels
from edgemask_runtime.images import frame_of, in_format

SPACES = {"gray": "GRAY", "rgb": "RGB", "bgr": "BGR", "rgba": "RGBA", "bgra": "BGRA"}
# What many cameras put between two markers; libjpeg skips it and says so.
HARMLESS = "extraneous bytes"


class JpegDecoder:
    """Pixels come straight in the colour order asked, scaled down inside the decoder where a half, quarter, ... fits.

    YUV keeps its planes: it is never made RGB in between.
    """

    def __init__(self, frame: Format) -> None:
        self._frame = frame
        self._turbo = _imported("simplejpeg") if frame.colour in SPACES else None
        self._av = None if self._turbo else _imported("av")
        if self._turbo is None and self._av is None:
            extra = "v4l2" if frame.colour in SPACES else "video"
            hint = f"pip install 'edgemask-runtime[{extra}]'"
            raise UserError(f"Motion JPEG cannot be decoded to {frame.colour} without {extra}", hint)
        self._codec: Any = self._av and strict_decoder(self._av, "mjpeg")

    def decode(self, content: Any) -> Pixels:
        """The JPEG, a buffer of bytes, as the graph's frame; UserError when it is broken."""
        return self._pixels(content) if self._turbo else self._planes(content)

    def _pixels(self, content: Any) -> Pixels:
        frame = self._frame
        found = self._decoded(content, SPACES[frame.colour])
        if found.shape[:2] == (frame.height, frame.width):
            return in_format(found, frame)
        colour = "GRAY" if frame.colour == "gray" else "RGB"
        return frame_of(self._decoded(content, colour), frame, "camera").pixels

    def _decoded(self, content: Any, space: str) -> Pixels:
        least = {"min_height": self._frame.height, "min_width": self._frame.width}
        try:
            return self._strictly(content, colorspace=space, **least)
        except ValueError as error:
            raise UserError(f"this picture does not decode: {one_line(error)}") from error

    def _strictly(self, content: Any, **options: Any) -> Pixels:
        turbo: Any = self._turbo
        try:
            found: Pixels = turbo.decode_jpeg(content, **options)
        except ValueError as error:
            if HARMLESS not in str(error):
                raise
            found = turbo.decode_jpeg(content, strict=False, **options)
        return found

    def _planes(self, content: Any) -> Pixels:
        from edgemask_runtime.cameras.ffmpeg import fitted

        av: Any = self._av
        try:
            picture = self._codec.decode(av.Packet(bytes(content)))[-1]
        except (av.FFmpegError, IndexError) as error:
            raise UserError("this picture does not decode") from error
        return fitted(picture, self._frame)


def strict_decoder(av: Any, name: str) -> Any:
    """FFmpeg's decoder of that name: else half a picture is given as a whole one, gray where nothing came."""
    decoder = av.CodecContext.create(name, "r")
    decoder.options = {"err_detect": "explode"}
    return decoder


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
