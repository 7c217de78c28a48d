"""Cameras behind one lazy table: only the one that is chosen is imported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from edgemask_runtime.errors import UserError
from edgemask_runtime.frames import Shot
from edgemask_runtime.images import SUFFIXES
from edgemask_runtime.manifest import FrameInput

CAMERAS = {
    "folder": "edgemask_runtime.cameras.folder:FolderCamera",
    "video": "edgemask_runtime.cameras.video:VideoCamera",
}


class Camera(Protocol):
    """Gives shots in the size and colour of the graph's frame, until it ends."""

    @property
    def fps(self) -> float:
        """The pace; 0 is as fast as the frames are taken, so that none is dropped."""

    def __iter__(self) -> Iterator[Shot]:
        """Give the shots; UserError when the source breaks off."""

    def close(self) -> None:
        """Let go of the source; may be called while another thread iterates."""


def open_camera(source: Path, frame: FrameInput, *, fps: float | None = None, loop: bool = False) -> Camera:
    """Open the camera that fits the path; `fps` None is the source's own pace. UserError when it cannot be read."""
    module, _, attribute = CAMERAS[_kind(source)].partition(":")
    factory: Any = getattr(importlib.import_module(module), attribute)
    camera: Camera = factory(source, frame, fps=fps, loop=loop)
    return camera


def _kind(source: Path) -> str:
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder", hint="--source takes a folder of images, an image or a video"
        )
    return "folder" if source.is_dir() or source.suffix.lower() in SUFFIXES else "video"
