"""A video file as a camera, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemask_runtime.cameras.ffmpeg import Decoder, import_av
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.frames import Shot
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

DEFAULT_FPS = 25.0


@dataclass(frozen=True)
class VideoSettings:
    """A video file, the pace (None: its own), and whether it begins again when it ends."""

    path: Path
    fps: float | None = field(default=None, metadata=between(0, 1000))
    loop: bool = False


class VideoCamera:
    """Every frame is decoded as its codec needs it; only the frames that are taken are converted."""

    Settings = VideoSettings
    live = False

    def __init__(self, settings: VideoSettings, frame: FrameInput) -> None:
        self._av = import_av(f"{settings.path}: a video")
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
            decoder = Decoder(container.streams.video[0], self._frame)
            for packet in self._packets(container):
                for taken in decoder.frames(packet):
                    yield Shot(f"{self._source.name}#{number}", taken.read)
                    number += 1

    def _packets(self, container: Any) -> Iterator[Any]:
        try:
            yield from container.demux(video=0)
        except self._av.FFmpegError as error:
            raise UserError(f"{self._source}: breaks off: {one_line(error)}") from error

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self._source))
        except (self._av.FFmpegError, OSError) as error:
            raise UserError(f"{self._source}: not a readable video: {one_line(error)}") from error
        if not container.streams.video:
            raise UserError(f"{self._source}: no video in this file")
        return container
