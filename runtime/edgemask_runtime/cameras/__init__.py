"""Cameras behind one lazy table: one file, one kind of source; only the one that is chosen is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from edgemask_runtime.errors import UserError
from edgemask_runtime.frames import Shot
from edgemask_runtime.images import SUFFIXES
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.tables import chosen

CAMERAS = {
    "folder": "edgemask_runtime.cameras.folder:FolderCamera",
    "video": "edgemask_runtime.cameras.video:VideoCamera",
    "v4l2": "edgemask_runtime.cameras.v4l2:V4l2Camera",
    "stream": "edgemask_runtime.cameras.stream:StreamCamera",
    "pattern": "edgemask_runtime.cameras.pattern:PatternCamera",
    "socket": "edgemask_runtime.cameras.local:SocketCamera",
    "gstreamer": "edgemask_runtime.cameras.gstreamer:GstreamerCamera",
    "picamera2": "edgemask_runtime.cameras.picamera2:Picamera2Camera",
}


class SourceLost(UserError):
    """A source that was there and is not any more; a live one is opened again."""


class Camera(Protocol):
    """Gives shots in the size and colour of the graph's frame, until it ends.

    A class of the table has its settings, a frozen dataclass, as `Settings`, and is made with them and the graph's
    `FrameInput`. SourceLost there means that it may come back, and is waited for; any other UserError ends the start.
    """

    @property
    def live(self) -> bool:
        """Whether it shows what happens now: it is opened again when it is lost or stalls; another one just ends."""

    @property
    def fps(self) -> float:
        """The pace of a source that is not live; 0 is as fast as the frames are taken, so that none is dropped.

        A live one keeps its own pace: its shots are taken as soon as it gives them, and this is what it states.
        """

    def __iter__(self) -> Iterator[Shot]:
        """Give the shots; SourceLost or another UserError when the source breaks off."""

    def close(self) -> None:
        """Let go of the source; may be called while another thread iterates, whose wait then ends."""


def camera_settings(kind: str) -> Any:
    """The dataclass of that kind's settings, without `kind`; UserError for an unknown kind."""
    return chosen(CAMERAS, kind, "kind of source").Settings


def open_camera(kind: str, settings: Any, frame: FrameInput) -> Camera:
    """Open the camera of that kind with its settings; UserError when it cannot be read."""
    camera: Camera = chosen(CAMERAS, kind, "kind of source")(settings, frame)
    return camera


def open_source(source: Path, frame: FrameInput, *, fps: float | None = None, loop: bool = False) -> Camera:
    """Open the camera that fits the path; `fps` None is the source's own pace. UserError when it cannot be read."""
    kind, settings = source_for(source, fps=fps, loop=loop)
    return open_camera(kind, settings, frame)


def source_for(source: Path, *, fps: float | None = None, loop: bool = False) -> tuple[str, Any]:
    """The kind of camera for a device, file or folder, and its settings."""
    kind = kind_of(source)
    if kind != "v4l2":
        return kind, camera_settings(kind)(source, fps=fps, loop=loop)
    if loop or fps == 0:
        raise UserError(f"{source}: a camera neither ends nor waits", hint="leave --loop and --fps 0 out")
    return kind, camera_settings(kind)(source, fps=fps)


def kind_of(source: Path) -> str:
    """The kind of camera for a device, file or folder; UserError when there is none."""
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder",
            hint="--source takes a folder of images, an image, a video or /dev/video0",
        )
    if source.is_char_device():
        return "v4l2"
    return "folder" if source.is_dir() or source.suffix.lower() in SUFFIXES else "video"
