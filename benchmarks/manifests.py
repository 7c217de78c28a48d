"""The manifest of a bundle that nobody baked, for benchmarks of what carries frames and answers."""

from __future__ import annotations

from typing import Any

from edgemask_runtime.manifest import FrameInput, Manifest, ModelRecord, OutputRecord, ProofRecord, SourceRecord

MODEL = "model.onnx"


def manifest_of(name: str, frame: FrameInput, output: OutputRecord, **changes: Any) -> Manifest:
    """A model of one frame and one output, without steps."""
    given: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "target": "host",
        "engine": "onnxruntime",
        "model": ModelRecord(MODEL, "onnx", SourceRecord(MODEL, "0" * 64, None)),
        "frame": frame,
        "entropy": None,
        "key": None,
        "chain": (),
        "outputs": (output,),
        "labels": None,
        "thresholds": {},
        "max_age_ms": 1000,
        "proof": ProofRecord(False, (), None),
        "recogniser": None,
        "tools": {},
    }
    return Manifest(**given | changes)
