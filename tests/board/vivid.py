"""Runs where a kernel has vivid: the kernel's cameras as the daemon reads them. Prints one JSON object."""

from __future__ import annotations

import json
import mmap
import threading
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.survey import survey
from edgemask_runtime.cameras.v4l2 import V4l2Camera, V4l2Settings
from edgemask_runtime.manifest import FrameInput

DEVICE = Path("/dev/video0")
CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("yuyv", 640, 360, {}),
    ("nv12", 640, 360, {}),
    ("i420", 320, 180, {}),
    ("gray", 320, 180, {}),
    ("rgb", 320, 180, {}),
    ("bgra", 320, 180, {"fps": 15.0}),
    ("rgb", 224, 224, {"format": "YUYV"}),
]


def frame(colour: Any, width: int, height: int) -> FrameInput:
    return FrameInput(width, height, colour, name="frame", dtype="uint8", batch=None)


def opened(colour: Any = "yuyv", width: int = 640, height: int = 360, **settings: Any) -> Any:
    return closing(V4l2Camera(V4l2Settings(DEVICE, timeout_s=20, **settings), frame(colour, width, height)))


def is_a_view(pixels: Any) -> bool:
    while getattr(pixels, "base", None) is not None:
        pixels = pixels.base
    return isinstance(getattr(pixels, "obj", pixels), mmap.mmap)


def taken(colour: str, width: int, height: int, settings: dict[str, Any]) -> dict[str, Any]:
    names, times = [], []
    with opened(colour, width, height, **settings) as camera:
        for shot in islice(iter(camera), 10):
            pixels = shot.read()
            facts = {"shape": pixels.shape, "spread": float(pixels.std()), "view": is_a_view(pixels)}
            times.append(shot.captured_ns)
            names.append(int(shot.name.partition("#")[2]))
            shot.release()
        ordered = times == sorted(times) and times[-1] <= time.monotonic_ns()
        return {**facts, "ordered": ordered, "numbers": names, "lost": camera.lost}


def held() -> dict[str, Any]:
    """The driver numbers what it has no buffer for; then the camera is opened again beside a frame that is held."""
    with opened(buffers=3) as camera:
        shots = iter(camera)
        kept = list(islice(shots, 3))
        time.sleep(1.0)
        for shot in kept[1:]:
            shot.release()
        next(shots).release()
        lost = camera.lost
    with opened("nv12") as again:
        spread = float(next(iter(again)).read().std())
    return {"lost": lost, "again": spread, "kept": float(kept[0].read().std())}


def closed() -> int:
    """Another thread ends the wait: how many frames came before."""
    with opened(fps=1.0) as camera:
        threading.Timer(0.5, camera.close).start()
        return len(list(camera))


def busy() -> str:
    with opened() as camera:
        next(iter(camera))
        try:
            opened("nv12")
        except SourceLost as error:
            return error.message
    return ""


if __name__ == "__main__":
    found = {
        "survey": str(survey(frame("nv12", 640, 360).format)),
        "taken": [taken(*case) for case in CASES],
        "held": held(),
        "closed": closed(),
        "busy": busy(),
    }
    print(f"\nfound={json.dumps(found)}", flush=True)
