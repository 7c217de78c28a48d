"""Answers, sinks and what a test waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgemask_runtime.answers import Answer, Reading
from edgemask_runtime.frames import NS_PER_MS, wall_clock
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.sinks import Sink, SinkContext, open_sink, sink_settings

from .tiny import manifest_of

PATIENCE_S = 60.0
DIGEST = "ab" * 32


def answer(frame: int = 1, reading: Reading | None = None, *, age_ms: float = 0.0, pipeline: str = "door") -> Answer:
    """An answer for a frame that was captured `age_ms` ago."""
    captured_ns = time.monotonic_ns() - int(age_ms * NS_PER_MS)
    told = reading or Reading((Guess(1, "bob", 0.75),), None, {})
    return Answer(pipeline, frame, f"shot {frame}", captured_ns, wall_clock(captured_ns), DIGEST, age_ms, 1.75, 0, told)


def opened(kind: str, manifest: Manifest | None = None, **settings: Any) -> Sink:
    """A sink of that kind for the pipeline `door`."""
    context = SinkContext("door", manifest or manifest_of(b"", "onnxruntime", False))
    return open_sink(kind, sink_settings(kind)(**settings), context)


def eventually(holds: Callable[[], Any]) -> Any:
    """Wait until `holds` gives something true, and return it; the machine may be very busy."""
    until_s = time.monotonic() + PATIENCE_S
    while not (value := holds()):
        assert time.monotonic() < until_s, "nothing came"
        time.sleep(0.005)
    return value
