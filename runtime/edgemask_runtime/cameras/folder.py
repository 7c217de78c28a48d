"""A folder of images, or one image, as a camera."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import Path

from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import Shot
from edgemask_runtime.images import list_images, read_frame
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

DEFAULT_FPS = 10.0
# Enough to catch a folder of the wrong things; all of a large one would delay the start by minutes.
CHECKED_AT_START = 256

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class FolderSettings:
    """A folder of images or one image, the pace, and whether it begins again when it ends."""

    path: Path
    fps: float | None = field(default=None, metadata=between(0, 1000))
    loop: bool = False


class FolderCamera:
    """The images in the order of their names; the first ones are read once at the start to fail early."""

    Settings = FolderSettings
    live = False

    def __init__(self, settings: FolderSettings, frame: FrameInput) -> None:
        self.fps = DEFAULT_FPS if settings.fps is None else settings.fps
        self._frame, self._loop = frame, settings.loop
        self._paths = list_images(settings.path)
        self._warned = False
        for path in self._paths[:CHECKED_AT_START]:
            self._read(path)

    def __iter__(self) -> Iterator[Shot]:
        """Give the images once, or for ever with `loop`."""
        rounds = repeat(self._paths) if self._loop else [self._paths]
        for path in chain.from_iterable(rounds):
            yield Shot(path.name, partial(self._read, path))

    def close(self) -> None:
        """Hold nothing open between two images."""

    def _read(self, path: Path) -> Pixels:
        frame = self._frame
        picture = read_frame(path, frame)
        if picture.resized_from and not self._warned:
            height, width = picture.resized_from
            log.warning("%s: %dx%d, resized to the graph's %dx%d", path, width, height, frame.width, frame.height)
            self._warned = True
        return picture.pixels
