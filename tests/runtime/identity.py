"""A bundle whose model gives its frame back, for whatever only carries it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onnx import TensorProto, helper

from edgemask_runtime.bundle import FrameInput, OutputRecord, write_bundle

from .tiny import manifest_of

SHAPE = (4, 3, 3)
PATTERN = """schema = 1
[http]
listen = "127.0.0.1:0"
{access}
[[models]]
name = "identity"
bundle = "identity.edgemask"
[[pipelines]]
name = "front"
model = "identity"
[pipelines.source]
kind = "pattern"
fps = {fps}
"""
"""Settings of a daemon with that bundle and its page, on a pattern."""


def identity_bundle(path: Path, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write the bundle: `frame` uint8 [N, *shape] to `pixels`, the same."""
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *shape])] for name in ("frame", "pixels")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["frame"], ["pixels"])], "identity", inputs, outputs)
    opsets = [helper.make_opsetid("", 18)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    manifest = dataclasses.replace(
        manifest_of(model, "onnxruntime", False),
        name="identity",
        frame=FrameInput(shape[1], shape[0], "rgb", name="frame", dtype="uint8", batch=None),
        outputs=(OutputRecord("pixels", "uint8", (None, *shape), "raw"),),
        labels=None,
        chain=(),
    )
    write_bundle(path, manifest, {manifest.model.file: model}, {})
    return path
