"""A GStreamer pipeline as a camera, in a helper process: a Jetson's cameras and decoders, and all else it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgemask_runtime.cameras.helper import SYSTEM_PYTHON, HelperCamera
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between


@dataclass(frozen=True)
class GstreamerSettings:
    """A pipeline as gst-launch-1.0 takes it, up to the raw video; the daemon adds the graph's format and the sink.

    `timeout_s` is also how long the pipeline may take to give its first frame.
    """

    pipeline: str = field(repr=False)
    timeout_s: float = field(default=10.0, metadata=between(0.1, 60))
    python: Path = SYSTEM_PYTHON


class GstreamerCamera(HelperCamera):
    """The newest frame of the pipeline, in the graph's format, size and coding."""

    Settings = GstreamerSettings

    def __init__(self, settings: GstreamerSettings, frame: FrameInput) -> None:
        options = {"kind": "gstreamer", "pipeline": settings.pipeline}
        super().__init__("gstreamer", frame.format, settings.timeout_s, settings.python, **options)
        self.wait_for_offer()
