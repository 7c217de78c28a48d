"""Baked files changed behind the toolchain's back, one thing at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgemask.models import METADATA_KEY
from edgemask.models.flatbuffer import pack, unpack
from edgemask.ops.tflite import text

Array = np.ndarray[Any, Any]
ChangeArray = Callable[[Array], Array]


def with_constant(path: Path, out: Path, prefix: str, change: ChangeArray, at: int = 0) -> Path:
    """The file with a real constant changed that nodes named `prefix`... read, the first; "" is the model's own."""
    made = _onnx_constant if path.suffix == ".onnx" else _tflite_constant
    out.write_bytes(made(path.read_bytes(), prefix, change, at))
    return out


def with_label(path: Path, out: Path, change: Callable[[Any], Any]) -> Path:
    """The file with another label: `change` takes the parsed one and gives a value for JSON, or text as it is."""
    data = path.read_bytes()
    out.write_bytes(_onnx_label(data, change) if path.suffix == ".onnx" else _tflite_label(data, change))
    return out


def _onnx_constant(data: bytes, prefix: str, change: ChangeArray, at: int) -> bytes:
    model = onnx.load_from_string(data)
    reads = [name for node in model.graph.node if _of(node.name, prefix) for name in node.input]
    real = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    tensor = [real[name] for name in reads if name in real][at]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return model.SerializeToString()


def _tflite_constant(data: bytes, prefix: str, change: ChangeArray, at: int) -> bytes:
    model = unpack(data)
    tensors = model.subgraphs[0].tensors
    made = [o for o in model.subgraphs[0].operators if _of(text(tensors[int(o.outputs[0])].name), prefix)]
    reads = [tensors[int(index)] for operator in made for index in operator.inputs if index >= 0]
    real = [t for t in reads if t.type == schema.TensorType.FLOAT32 and model.buffers[t.buffer].data is not None]
    buffer = model.buffers[real[at].buffer]
    buffer.data = np.frombuffer(change(np.array(buffer.data, np.uint8).view(np.float32)).tobytes(), np.uint8)
    return pack(model)


def _of(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix else not name.startswith("edgemask/")


def _onnx_label(data: bytes, change: Callable[[Any], Any]) -> bytes:
    model = onnx.load_from_string(data)
    entry = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = _changed(entry.value, change)
    return model.SerializeToString()


def _tflite_label(data: bytes, change: Callable[[Any], Any]) -> bytes:
    model = unpack(data)
    entry = next(entry for entry in model.metadata if text(entry.name) == METADATA_KEY)
    label = _changed(bytes(model.buffers[entry.buffer].data).decode(), change)
    model.buffers[entry.buffer].data = np.frombuffer(label.encode(), np.uint8)
    return pack(model)


def _changed(label: str, change: Callable[[Any], Any]) -> str:
    value = change(json.loads(label))
    return value if isinstance(value, str) else json.dumps(value)
