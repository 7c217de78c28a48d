"""A Raspberry Pi's camera through picamera2, in a helper process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgemask_runtime.cameras.helper import SYSTEM_PYTHON, HelperCamera
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between


@dataclass(frozen=True)
class Picamera2Settings:
    """The number of the camera, and its pace."""

    camera: int = field(default=0, metadata=between(0, 16))
    fps: float = field(default=30.0, metadata=between(0.1, 1000))
    timeout_s: float = field(default=10.0, metadata=between(0.1, 60))
    python: Path = SYSTEM_PYTHON


class Picamera2Camera(HelperCamera):
    """What the Pi's image processor gives in the graph's format and size. Not tested: it needs the camera."""

    Settings = Picamera2Settings

    def __init__(self, settings: Picamera2Settings, frame: FrameInput) -> None:
        options = {"kind": "picamera2", "camera": settings.camera, "fps": settings.fps}
        super().__init__("picamera2", frame.format, settings.timeout_s, settings.python, **options)
        self.wait_for_offer()
