"""A video file as a camera, through PyAV."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.formats import Pixels, assembled
from edgemask_runtime.frames import Shot
from edgemask_runtime.images import in_format, recolour
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

DEFAULT_FPS = 25.0
PLANES = {"nv12": ("nv12", (1, 1)), "i420": ("yuv420p", (1, 0.5, 0.5)), "yuyv": ("yuyv422", (2,))}
"""FFmpeg's name for a format, and the bytes of each plane's rows by the frame's width."""
MATRICES = {"bt601": "ITU601", "bt709": "ITU709"}
RANGES = {"limited": "MPEG", "full": "JPEG"}
UNSPECIFIED = 0


@dataclass(frozen=True)
class VideoSettings:
    """A video file, the pace (None: its own), and whether it begins again when it ends."""

    path: Path
    fps: float | None = field(default=None, metadata=between(0, 1000))
    loop: bool = False


class VideoCamera:
    """Every frame is decoded, as the codec needs it; only the frames that are taken are converted."""

    Settings = VideoSettings
    live = False

    def __init__(self, settings: VideoSettings, frame: FrameInput) -> None:
        self._av = _import_av(settings.path)
        self._source, self._frame, self._loop = settings.path, frame, settings.loop
        with self._open() as container:
            rate = container.streams.video[0].average_rate
        self.fps = float(rate or DEFAULT_FPS) if settings.fps is None else settings.fps
        self._closed = False

    def __iter__(self) -> Iterator[Shot]:
        """Give the frames once, or for ever with `loop`; a packet that does not decode gives a shot that fails."""
        while not self._closed:
            yield from self._shots_once()
            if not self._loop:
                return

    def close(self) -> None:
        """Stop after the frame in hand; the file is closed by the thread that iterates."""
        self._closed = True

    def _shots_once(self) -> Iterator[Shot]:
        number = 0
        with self._open() as container:
            for packet in self._packets(container):
                for picture in self._decoded(packet):
                    yield Shot(f"{self._source.name}#{number}", partial(self._convert, picture))
                    number += 1

    def _packets(self, container: Any) -> Iterator[Any]:
        try:
            yield from container.demux(video=0)
        except self._av.FFmpegError as error:
            raise UserError(f"{self._source}: breaks off: {one_line(error)}") from error

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except self._av.FFmpegError:
            return [None]

    def _convert(self, picture: Any) -> Pixels:
        if picture is None:
            raise UserError("this part of the video does not decode")
        frame = self._frame
        size = {"width": frame.width, "height": frame.height, "interpolation": "BILINEAR"}
        if frame.colour in PLANES:
            return _raw(picture.reformat(**size, **_coding(picture, frame)), frame)
        scaled = picture.reformat(**size, format="rgb24")
        return in_format(recolour(scaled.to_ndarray(), frame.colour), frame)

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self._source))
        except (self._av.FFmpegError, OSError) as error:
            raise UserError(f"{self._source}: not a readable video: {one_line(error)}") from error
        if not container.streams.video:
            raise UserError(f"{self._source}: no video in this file")
        return container


def _coding(picture: Any, frame: FrameInput) -> dict[str, Any]:
    """What FFmpeg makes of the picture: no RGB in between, and nothing at all where the video is coded so already."""
    return {
        "format": PLANES[frame.colour][0],
        "dst_colorspace": MATRICES[frame.matrix or "bt601"],
        "dst_color_range": RANGES[frame.range or "limited"],
        "src_color_range": picture.color_range if picture.color_range != UNSPECIFIED else RANGES["limited"],
    }


def _raw(picture: Any, frame: FrameInput) -> Pixels:
    """The picture's planes, whose rows FFmpeg pads as it likes, as the graph's buffer."""
    _, shares = PLANES[frame.colour]
    rows = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height] for plane in picture.planes]
    return assembled([plane[:, : int(frame.width * share)] for plane, share in zip(rows, shares, strict=True)], frame)


def _import_av(source: Path) -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        hint = "pip install 'edgemask-runtime[video]'"
        raise UserError(f"{source}: a video cannot be read without PyAV", hint) from error
