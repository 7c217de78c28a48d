"""A MobileNetV2 that also reads the number that the test pattern shows: an answer tells which frame it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgemask
from benchmarks.mobilenet import mobilenet_v2

SIDE, WIDTH, HEIGHT = 224, 640, 480
FIELDS = 4
RECIPE = f"""
schema = 1
name = "numbered"
[model]
file = "model.onnx"
[frame]
width = {WIDTH}
height = {HEIGHT}
colour = "{{colour}}"
{{extra}}
{{steps}}
[[steps]]
kind = "normalise"
[runtime]
max_age_ms = {{max_age_ms}}
"""
STEPS = {
    "rgb": f'[[steps]]\nkind = "resize"\nwidth = {SIDE}\nheight = {SIDE}',
    "i420": f'[[steps]]\nkind = "resize-planes"\nwidth = {SIDE}\nheight = {SIDE}\n[[steps]]\nkind = "rgb"',
}
DARK = 0.3
"""What is above is white. Why not a half: the mean of noise is a half, and rounding would decide."""


def numbered_model() -> bytes:
    """`image` float32 [N, 3, 224, 224] from 0 to 1, to `number` and `best`, float32 [N, 1]."""
    model = onnx.load_from_string(mobilenet_v2())
    graph = model.graph
    constants = {
        "channel": np.array([1], np.int64),
        "top": np.array([0, 0, 0, 0], np.int64),
        "middle": np.array([2**31, 1, SIDE // 2, SIDE], np.int64),
        "dark": np.array(DARK, np.float32),
        "weights": 2.0 ** np.arange(FIELDS**2, dtype=np.float32).reshape(1, 1, FIELDS, FIELDS),
        "fields": np.array([1, 2, 3], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    size = [SIDE // 2 // FIELDS, SIDE // FIELDS]
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["image", "channel"], ["gray"], keepdims=1),
            helper.make_node("Slice", ["gray", "top", "middle"], ["upper"]),
            helper.make_node("AveragePool", ["upper"], ["means"], kernel_shape=size, strides=size),
            helper.make_node("Greater", ["means", "dark"], ["white"]),
            helper.make_node("Cast", ["white"], ["bits"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["bits", "weights"], ["worth"]),
            helper.make_node("ReduceSum", ["worth", "fields"], ["number"], keepdims=0),
            helper.make_node("ArgMax", ["logits"], ["place"], axis=1, keepdims=0),
            helper.make_node("Cast", ["place"], ["best"], to=TensorProto.FLOAT),
        ]
    )
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("number", "best"))
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def numbered_bundle(folder: Path, colour: str, max_age_ms: int = 60_000) -> Path:
    """Build its bundle for frames of 640 x 480 in that format, in `folder`."""
    (folder / "model.onnx").write_bytes(numbered_model())
    recipe = folder / "edgemask.toml"
    # A JPEG's levels are of the full range.
    extra = 'range = "full"' if colour == "i420" else ""
    recipe.write_text(RECIPE.format(colour=colour, extra=extra, steps=STEPS[colour], max_age_ms=max_age_ms))
    return edgemask.build(recipe, "host", folder / "build").bundle
