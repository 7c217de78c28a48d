"""What the sources that use PyAV share: FFmpeg's packets and pictures into the graph's frame."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from edgemask_runtime.cameras.jpeg import JpegDecoder, strict_decoder
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format, Pixels, assembled
from edgemask_runtime.images import in_format, recolour

PLANES = {"nv12": ("nv12", (1, 1)), "i420": ("yuv420p", (1, 0.5, 0.5)), "yuyv": ("yuyv422", (2,))}
"""FFmpeg's name for a format, and the bytes of each plane's rows by the frame's width."""
MATRICES = {"bt601": "ITU601", "bt709": "ITU709"}
RANGES = {"limited": "MPEG", "full": "JPEG"}
UNSPECIFIED = 0
PLANAR = {"yuyv422": "yuv422p", "nv12": "yuv420p"}


class Taken(NamedTuple):
    """A frame that can be read later, and its time in seconds of the stream's clock, where the stream has one."""

    read: Callable[[], Pixels]
    seconds: float | None


class Decoder:
    """One video stream's packets into frames.

    Where every packet is a picture of its own (Motion JPEG), it is decoded only when its frame is read; all else is
    decoded at once, as the next picture needs it. What does not decode gives a frame that fails.
    """

    def __init__(self, stream: Any, frame: Format) -> None:
        self._av = import_av("a video")
        self._frame = frame
        self._alone = _alone(stream, self._av) if stream.codec_context.codec.intra_only else None
        self._jpegs = JpegDecoder(frame) if stream.codec_context.name == "mjpeg" else None

    def frames(self, packet: Any) -> Iterator[Taken]:
        """The frames that this packet gives; none for one that only fills the decoder."""
        if self._alone is None:
            for picture in self._decoded(packet, packet):
                yield Taken(partial(self._converted, picture), picture and picture.time)
        elif packet.size:
            seconds = None if packet.pts is None else float(packet.pts * packet.time_base)
            yield Taken(partial(self._read, packet), seconds)

    def _read(self, packet: Any) -> Pixels:
        if self._jpegs:
            return self._jpegs.decode(packet)
        return self._converted(next(iter(self._decoded(self._alone, packet)), None))

    def _decoded(self, decoder: Any, packet: Any) -> list[Any]:
        try:
            return list(decoder.decode() if decoder is packet else decoder.decode(packet))
        except self._av.FFmpegError:
            return [None]

    def _converted(self, picture: Any) -> Pixels:
        if picture is None or picture.is_corrupt:
            raise UserError("this part of the video does not decode")
        return fitted(picture, self._frame)


def fitted(picture: Any, frame: Format) -> Pixels:
    """FFmpeg's picture in the frame's size and format; no RGB in between where the frame is YUV."""
    size = {"width": frame.width, "height": frame.height, "interpolation": "BILINEAR"}
    if frame.colour in PLANES:
        return _raw(picture.reformat(**size, **_coding(picture, frame)), frame)
    scaled = _planar(picture).reformat(**size, format="rgb24", src_color_range=_range(picture))
    return in_format(recolour(scaled.to_ndarray(), frame.colour), frame)


def _planar(picture: Any) -> Any:
    """The same pixels, each channel in a plane of its own, of which FFmpeg makes RGB in half to a third of the time."""
    planes = PLANAR.get(picture.format.name)
    if planes is None:
        return picture
    same = {"src_color_range": _range(picture), "dst_color_range": _range(picture)}
    return picture.reformat(format=planes, **same)


def import_av(what: str) -> Any:
    """PyAV; UserError that names the extra when it is not there."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(f"{what} cannot be read without PyAV", "pip install 'edgemask-runtime[video]'") from error


def _alone(stream: Any, av: Any) -> Any:
    """A decoder that outlives the container, for pictures that are read later, from another thread."""
    decoder = strict_decoder(av, stream.codec_context.name)
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _coding(picture: Any, frame: Format) -> dict[str, Any]:
    """What FFmpeg makes of the picture: nothing at all where the video is coded so already."""
    return {
        "format": PLANES[frame.colour][0],
        "dst_colorspace": MATRICES[frame.matrix or "bt601"],
        "dst_color_range": RANGES[frame.range or "limited"],
        "src_color_range": _range(picture),
    }


def _range(picture: Any) -> Any:
    full = picture.format.name.startswith("yuvj")
    return RANGES["full" if full else "limited"] if picture.color_range == UNSPECIFIED else picture.color_range


def _raw(picture: Any, frame: Format) -> Pixels:
    """The picture's planes, whose rows FFmpeg pads as it likes, as the graph's buffer."""
    _, shares = PLANES[frame.colour]
    rows = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height] for plane in picture.planes]
    return assembled([plane[:, : int(frame.width * share)] for plane, share in zip(rows, shares, strict=True)], frame)
