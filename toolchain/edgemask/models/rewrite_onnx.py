"""Rewriting of ONNX models: steps in place of the model's own nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from onnx import ModelProto, NodeProto, ValueInfoProto, helper, shape_inference

from edgemask.chain import Rewritten
from edgemask.models.rewriting import no_shape, require_match, wrong_dtype
from edgemask.ops.onnx import DTYPES, OnnxOps, OnnxValue
from edgemask.spec import DType


def rewrite(proto: ModelProto, rewrites: Sequence[Rewritten], opset: int) -> None:
    """Put each step in place of the nodes that it matches; nodes in bodies of If, Loop and Scan stay as they are."""
    for rewritten in rewrites:
        ops, values, sites = OnnxOps(opset), _values(proto), 0
        nodes: list[NodeProto] = []
        for node in proto.graph.node:
            if rewritten.step.matches(node.op_type, node.name or node.output[0]):
                nodes += _instead(node, ops, rewritten, sites, values)
                sites += 1
            else:
                nodes.append(node)
        require_match(rewritten, sites, (node.op_type for node in nodes))
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        proto.graph.initializer.extend(ops.initializers)


def _instead(
    node: NodeProto, ops: OnnxOps, rewritten: Rewritten, site: int, values: Mapping[str, ValueInfoProto]
) -> list[NodeProto]:
    ops.nodes.clear()
    with ops.scope(f"{rewritten.name}/{site}"):
        ops.alias(rewritten.step.build(ops, _taken(node, values, rewritten)), node.output[0])
    return list(ops.nodes)


def _values(proto: ModelProto) -> dict[str, ValueInfoProto]:
    graph = shape_inference.infer_shapes(proto).graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def _taken(node: NodeProto, values: Mapping[str, ValueInfoProto], rewritten: Rewritten) -> OnnxValue:
    name = node.input[0]
    if name not in values or not values[name].type.tensor_type.HasField("shape"):
        raise no_shape(rewritten, name)
    tensor = values[name].type.tensor_type
    dtype = DTYPES.get(tensor.elem_type)
    if dtype != "float32":
        raise wrong_dtype(rewritten, name, dtype or helper.tensor_dtype_to_string(tensor.elem_type))
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    if len(sizes) < 2 or 0 in sizes[1:]:
        raise no_shape(rewritten, name)
    return OnnxValue(name, cast(DType, dtype), tuple(sizes[1:]))
