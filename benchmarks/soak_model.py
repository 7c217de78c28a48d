"""A small model that gives back the number that the test pattern shows, after as much work as it is told to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgemask
from edgemask_runtime.bundle import Bundle, write_bundle

WIDTH, HEIGHT, FIELDS, HIDDEN = 32, 16, 4, 512
RECIPE = f"""
schema = 1
name = "echo"
[model]
file = "model.onnx"
[frame]
width = {WIDTH}
height = {HEIGHT}
colour = "gray"
[[steps]]
kind = "bit-depth"
bits = 1
[runtime]
max_age_ms = 2000
"""


def echo_model(work: int) -> bytes:
    """`image` float32 [N, 1, 16, 32] from 0 to 255, to `number` float32 [N]; `work` matrix products of 512 x 512."""
    weights = np.random.default_rng(0).normal(0, 0.05, (HIDDEN, HIDDEN)).astype(np.float32)
    constants = {
        "begin": np.array([0], np.int64),
        "middle": np.array([HEIGHT // 2], np.int64),
        "rows": np.array([2], np.int64),
        "white": np.array(128, np.float32),
        "worth": 2.0 ** np.arange(FIELDS**2, dtype=np.float32).reshape(1, 1, FIELDS, FIELDS),
        "all": np.array([1, 2, 3], np.int64),
        "weights": weights,
        "nothing": np.array(0, np.float32),
        "last": np.array([1], np.int64),
    }
    size = [HEIGHT // 2 // FIELDS, WIDTH // FIELDS]
    nodes = [
        helper.make_node("Slice", ["image", "begin", "middle", "rows"], ["upper"]),
        helper.make_node("AveragePool", ["upper"], ["means"], kernel_shape=size, strides=size),
        helper.make_node("Greater", ["means", "white"], ["set"]),
        helper.make_node("Cast", ["set"], ["bits"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["bits", "worth"], ["worths"]),
        helper.make_node("ReduceSum", ["worths", "all"], ["shown"], keepdims=0),
        helper.make_node("Flatten", ["image"], ["x0"]),
    ]
    for step in range(work):
        nodes.append(helper.make_node("MatMul", [f"x{step}", "weights"], [f"y{step}"]))
        nodes.append(helper.make_node("Tanh", [f"y{step}"], [f"x{step + 1}"]))
    nodes += [
        helper.make_node("ReduceMax", [f"x{work}", "last"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "nothing"], ["none"]),
        helper.make_node("Add", ["shown", "none"], ["number"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, HEIGHT, WIDTH])
    number = helper.make_tensor_value_info("number", TensorProto.FLOAT, ["N"])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "echo", [image], [number], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def echo_bundles(folder: Path, work: int) -> list[Path]:
    """Two bundles with the same graph and another digest, so that one can take the other's place."""
    (folder / "model.onnx").write_bytes(echo_model(work))
    (folder / "edgemask.toml").write_text(RECIPE)
    built = edgemask.build(folder / "edgemask.toml", "host", folder / "build")
    bundle, second = Bundle.open(built.bundle), folder / "second.edgemask"
    manifest = replace(bundle.manifest, tools={**bundle.manifest.tools, "build": "2"})
    write_bundle(second, manifest, {name: bundle.read(name) for name in manifest.files}, {})
    return [built.bundle, second]
