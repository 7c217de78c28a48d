"""One small graph, written once in primitives, on every interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import helper

from edgemask.models.flatbuffer import pack
from edgemask.models.onnx import OnnxModel
from edgemask.models.tflite import TfliteModel
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.onnx import OnnxOps, OnnxValue, value_info
from edgemask.ops.tflite import TfliteOps
from edgemask.steps import Map
from edgemask_runtime.engines import open_engine

NEWEST_OPSET = 26
OPSETS = (13, 18, NEWEST_OPSET)
INTERPRETERS = (*(f"onnx-{opset}" for opset in OPSETS), "tflite")
STEP = "1.case"

Array = np.ndarray[Any, Any]
Build = Callable[..., Any]
"""`build(ops, *inputs)` gives a value or a tuple of values, whatever the interpreter."""


def reference(build: Build, inputs: Sequence[Array]) -> list[Array]:
    """The outputs by the NumPy interpreter; inputs and outputs have N in front."""
    return _listed(build(NumpyOps(), *inputs))


def on_engine(interpreter: str, build: Build, inputs: Sequence[Array]) -> list[Array]:
    """The outputs by the engine that runs what an interpreter writes."""
    if interpreter == "tflite":
        return _on_litert(build, inputs)
    engine = open_engine("onnxruntime", onnx_bytes(build, inputs, int(interpreter.removeprefix("onnx-"))))
    return list(engine.run({f"x{i}": value for i, value in enumerate(inputs)}).values())


def _on_litert(build: Build, inputs: Sequence[Array]) -> list[Array]:
    """Sample by sample: N is 1 there."""
    engine = open_engine("litert", tflite_bytes(build, inputs))
    samples = [
        engine.run({f"x{i}": value[n : n + 1] for i, value in enumerate(inputs)}) for n in range(inputs[0].shape[0])
    ]
    return [np.concatenate([sample[name] for sample in samples]) for name in samples[0]]


def onnx_bytes(build: Build, inputs: Sequence[Array], opset: int) -> bytes:
    """The graph of `build` as an ONNX file; inputs are x0, x1 … and outputs y0, y1 …"""
    ops = OnnxOps(opset)
    values = [OnnxValue(f"x{i}", x.dtype.name, x.shape[1:]) for i, x in enumerate(inputs)]  # type: ignore[arg-type]
    with ops.scope(STEP):
        made = _listed(build(ops, *values))
    outputs = [ops.alias(value, f"y{i}") for i, value in enumerate(made)]
    declared = [[value_info(value, "N") for value in side] for side in (values, outputs)]
    graph = helper.make_graph(ops.nodes, "case", *declared, ops.initializers)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    return bytes(model.SerializeToString())


def tflite_bytes(build: Build, inputs: Sequence[Array]) -> bytes:
    """The graph of `build` as a TFLite file; inputs are x0, x1 … and outputs y0, y1 …"""
    model = empty_tflite()
    graph = model.subgraphs[0]
    ops = TfliteOps(model)
    values = [ops.tensor(f"x{i}", x.dtype.name, x.shape[1:]) for i, x in enumerate(inputs)]  # type: ignore[arg-type]
    with ops.scope(STEP):
        outputs = _listed(build(ops, *values))
    graph.operators = ops.operators
    graph.inputs, graph.outputs = [value.index for value in values], [value.index for value in outputs]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_entry(f"x{i}", value.index) for i, value in enumerate(values)]
    signature.outputs = [_entry(f"y{i}", value.index) for i, value in enumerate(outputs)]
    model.signatureDefs = [signature]
    return pack(model)


def empty_tflite() -> schema.ModelT:
    """A model with one subgraph and nothing in it."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    graph.tensors, graph.operators, graph.name = [], [], b"main"
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers = [schema.BufferT()]
    return model


def read_bytes(interpreter: str, build: Build, inputs: Sequence[Array]) -> OnnxModel | TfliteModel:
    """The graph of `build` as the toolchain reads a file of it."""
    if interpreter == "tflite":
        return TfliteModel(Path("case.tflite"), tflite_bytes(build, inputs))
    opset = int(interpreter.removeprefix("onnx-"))
    return OnnxModel(Path("case.onnx"), onnx_bytes(build, inputs, opset))


def stepped(step: Map, frame: Array, entropy: Array | None = None, interpreter: str = "numpy") -> Array:
    """What a step makes of frames N x H x W x C."""

    def build(ops: Any, x: Any, *bytes_: Any) -> Any:
        return step.build(ops, x, *bytes_ or (None,))

    inputs = [frame] if entropy is None else [frame, entropy]
    (made,) = reference(build, inputs) if interpreter == "numpy" else on_engine(interpreter, build, inputs)
    return made


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _listed(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple) else [made]
