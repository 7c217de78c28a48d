"""ONNX model files."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper, version_converter

from edgemask.chain import Chain, Rewritten
from edgemask.errors import UserError, one_line
from edgemask.models import ENTROPY, METADATA_KEY, RESERVED, Format, Graph, Model, Node
from edgemask.models.card import Card
from edgemask.models.onnx_card import describe
from edgemask.models.onnx_cuts import cuts
from edgemask.models.onnx_names import copies, reads, rename
from edgemask.models.rewrite_onnx import rewrite
from edgemask.models.rewriting import entropy_end
from edgemask.ops.onnx import OnnxOps, OnnxValue, value_info
from edgemask.ops.scope import PREFIX, owner
from edgemask.spec import DType
from edgemask.steps import Rewrite
from edgemask_runtime.bundle import SourceRecord
from edgemask_runtime.engines import TensorInfo

MIN_OPSET = 13
MIN_IR_VERSION = 7
QUANTISED = {
    *"QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul".split(),
    *"ConvInteger MatMulInteger".split(),
}


class OnnxModel(Model):
    """An ONNX model; weights kept in files beside it are read into memory."""

    format: ClassVar[Format] = "onnx"
    engine: ClassVar[str] = "onnxruntime"

    def __init__(self, path: Path, data: bytes, origin: SourceRecord | None = None) -> None:
        super().__init__(path, data, origin)
        self.proto = _parse(path, data)

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        weights = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_describe(value) for value in self.proto.graph.input if value.name not in weights)

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return tuple(_describe(value) for value in self.proto.graph.output)

    @cached_property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        return _labels(self.metadata.get("names", ""))

    def whole(self) -> bytes:
        return _serialised(self.proto, self.path)

    def sums_whole_numbers(self) -> bool:
        return any(node.op_type in QUANTISED for node in self.proto.graph.node)

    def graph(self) -> Graph:
        dtypes = _element_types(self.proto, self.path)
        nodes = tuple(
            Node(node.op_type, owner(node.name), tuple(reads(node)), tuple(node.output), cuts(node, dtypes))
            for node in self.proto.graph.node
        )
        inputs = tuple(info.name for info in self.inputs)
        return Graph(nodes, inputs, {info.name: info.name for info in self.outputs})

    def constant(self, name: str) -> NDArray[np.uint8] | None:
        found = next((tensor for tensor in self.proto.graph.initializer if tensor.name == name), None)
        is_bytes = found is not None and found.data_type == onnx.TensorProto.UINT8
        return np.asarray(onnx.numpy_helper.to_array(found), np.uint8) if found and is_bytes else None

    def graft(self, chain: Chain, metadata: str, published_key: bytes | None = None, card: Card | None = None) -> bytes:
        self.require_trained()
        proto = _at_least(self.proto, self.path, MIN_OPSET)
        _free_names(proto, {*RESERVED, *chain.outputs})
        rewrite(proto, chain.rewrites, _opset(proto))
        _Graft(proto, chain, published_key).build()
        entry = proto.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, metadata
        if card is not None:
            describe(proto, chain, card)
        return _serialised(proto, self.path)

    def rewritten(self, rewrites: Sequence[Rewritten]) -> OnnxModel:
        proto = _at_least(self.proto, self.path, MIN_OPSET)
        _free_names(proto, {ENTROPY})
        batch = _batch(_image_input(proto))
        rewrite(proto, rewrites, _opset(proto))
        if needs := entropy_end(rewrites):
            proto.graph.input.append(value_info(OnnxValue(ENTROPY, "uint8", (needs,)), batch))
        return OnnxModel(self.path, _serialised(proto, self.path), self._origin)

    def rewrite_bytes(self, rewrites: Sequence[Rewrite]) -> list[int]:
        proto = _at_least(self.proto, self.path, MIN_OPSET)
        _free_names(proto, {ENTROPY})
        return rewrite(proto, [Rewritten(0, step, (0, 0)) for step in rewrites], _opset(proto))

    def probe(self, tensors: Sequence[str]) -> tuple[bytes, dict[str, str]]:
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        known = {info.name for info in self.outputs}
        types = _element_types(proto, self.path)
        for name in dict.fromkeys(tensors):
            if name not in known:
                proto.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
        return _serialised(proto, self.path), {name: name for name in tensors}


class _Graft:
    """Puts a chain around the model in `proto`, in place."""

    def __init__(self, proto: ModelProto, chain: Chain, published_key: bytes | None) -> None:
        self._published_key = published_key
        self._graph = proto.graph
        self._chain = chain
        self._ops = OnnxOps(_opset(proto))
        self._input = _image_input(proto)
        self._own = list(proto.graph.node)
        self._calls = 0

    def build(self) -> None:
        """Write the chain's nodes before and after the model's own, new inputs and outputs."""
        chain, graph = self._chain, self._graph
        batch = _batch(self._input)
        frame = OnnxValue("frame", "uint8", chain.frame.sample)
        entropy = OnnxValue("entropy", "uint8", (chain.entropy_bytes,)) if chain.entropy_bytes else None
        key = OnnxValue("key", "uint8", (chain.key_bytes,)) if chain.key_bytes else None
        inputs = [value for value in (frame, entropy, key) if value]
        if key and self._published_key is not None:
            inputs.remove(key)
            key = self._ops.for_each(np.frombuffer(self._published_key, np.uint8), key.name, frame)
        outputs = chain.run(self._ops, frame, entropy, self._call, key=key)
        graph.input.remove(self._input)
        for position, value in enumerate(inputs):
            graph.input.insert(position, value_info(value, batch))
        self._declare(outputs, batch)
        del graph.node[:]
        graph.node.extend(self._ops.nodes)
        graph.initializer.extend(self._ops.initializers)

    def _call(self, x: OnnxValue) -> dict[str, OnnxValue]:
        self._calls += 1
        names: dict[str, str] = {}
        if self._calls == 1:
            self._ops.alias(x, self._input.name)
            self._ops.nodes.extend(self._own)
        else:
            prefix = f"call{self._calls}/"
            names = {name: prefix + name for node in self._own for name in node.output if name}
            names[self._input.name] = x.name
            self._ops.nodes.extend(copies(self._own, names, prefix))
        return {info.name: _value(info, names.get(info.name, info.name)) for info in self._chain.model_outputs}

    def _declare(self, outputs: dict[str, OnnxValue], batch: int | str | None) -> None:
        known = {value.name: value for value in self._graph.output}
        declared: list[ValueInfoProto] = []
        for name, value in outputs.items():
            if name in known and value.name == name:
                declared.append(known[name])
            else:
                self._free(name)
                named = self._ops.alias(value, name)
                declared.append(value_info(named, batch))
        del self._graph.output[:]
        self._graph.output.extend(declared)

    def _free(self, name: str) -> None:
        """Rename the model's own output of this name: a step's output takes its place."""
        made = {output for node in self._ops.nodes for output in node.output}
        if name in made:
            rename(self._ops.nodes, {name: _unused(name, made)})


def _parse(path: Path, data: bytes) -> ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
        _check_names(proto)
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{path}: no sound ONNX model: {one_line(error)}", "export or copy it again") from error
    return proto


def _check_names(proto: ModelProto) -> None:
    """ValueError for a name that is no UTF-8: the format allows any bytes, protobuf then gives them as they are."""
    graph = proto.graph
    names = [name for node in graph.node for name in (node.name, node.op_type, node.domain, *reads(node), *node.output)]
    names += [thing.name for thing in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)]
    names += [text for entry in proto.metadata_props for text in (entry.key, entry.value)]
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no text")


def _describe(value: ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    known = tensor.elem_type in helper.get_all_tensor_dtypes()
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if known else "unknown"
    return TensorInfo(value.name, dtype, shape)


def _value(info: TensorInfo, name: str) -> OnnxValue:
    """The model's output under the name of one call; a free axis counts as 1 where only rank matters."""
    return OnnxValue(name, cast(DType, info.dtype), tuple(size or 1 for size in info.shape[1:]))


def _element_types(proto: ModelProto, path: Path) -> dict[str, int]:
    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"{path}: no sound ONNX model: {one_line(error)}", "export or copy it again") from error
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _weights(proto: ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer}


def _image_input(proto: ModelProto) -> ValueInfoProto:
    weights = _weights(proto)
    values: list[ValueInfoProto] = [value for value in proto.graph.input if value.name not in weights]
    return values[0]


def _opset(proto: ModelProto) -> int:
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _batch(value: ValueInfoProto) -> int | str:
    dim = value.type.tensor_type.shape.dim[0]
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "N"


def _at_least(proto: ModelProto, path: Path, opset: int) -> ModelProto:
    """A copy at `opset` or its own later one."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    if _opset(proto) < opset:
        try:
            copy = version_converter.convert_version(proto, opset)
        except Exception as error:
            hint = f"export it at opset {opset} or later"
            raise UserError(f"{path}: cannot be raised to opset {opset}: {one_line(error)}", hint) from error
    copy.ir_version = max(copy.ir_version, MIN_IR_VERSION)
    return copy


def _free_names(proto: ModelProto, wanted: set[str]) -> None:
    """Rename the model's own tensors and nodes that have a name which the chain needs; outputs keep theirs."""
    graph = proto.graph
    things = [*graph.input, *graph.initializer, *graph.value_info, *(s.values for s in graph.sparse_initializer)]
    kept = {value.name for value in graph.output}
    _refuse_outputs({name for name in kept if name in RESERVED or name.startswith(PREFIX)})
    taken = {name for node in graph.node for name in (*reads(node), *node.output)} | {thing.name for thing in things}
    names = {name: _unused(name, taken) for name in taken - kept if name in wanted or name.startswith(PREFIX)}
    rename(graph.node, names)
    for thing in things:
        thing.name = names.get(thing.name, thing.name)
    for node in graph.node:
        node.name = f"model/{node.name}" if owner(node.name) else node.name


def _refuse_outputs(names: set[str]) -> None:
    if names:
        raise UserError(f"the model has an output named {' and '.join(sorted(names))}", "rename it: edgemask needs it")


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"model/{name}"
    return name


def _serialised(proto: ModelProto, path: Path) -> bytes:
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except (ValueError, EncodeError) as error:
        raise UserError(f"{path}: too large for one ONNX file: {one_line(error)}") from error


def _labels(names: str) -> tuple[str, ...] | None:
    """Ultralytics' `names`: "{0: 'person', 1: 'bicycle'}"."""
    try:
        found = ast.literal_eval(names)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(found, dict) and list(found) == list(range(len(found))):
        return tuple(str(label) for label in found.values())
    return None
