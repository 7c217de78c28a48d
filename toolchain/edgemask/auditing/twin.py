"""A model's twin: the same function on PyTorch, with gradients."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from edgemask.auditing.operators import OPERATORS, Node, Operator, Tensor
from edgemask.auditing.operators.shaping import tensor_of
from edgemask.errors import UserError, one_line

for _module in ("elementwise", "reducing", "spatial"):
    importlib.import_module(f"edgemask.auditing.operators.{_module}")


class NoTwin(UserError):
    """The model holds what PyTorch cannot follow; attacks that need its gradient cannot be run."""


class Twin:
    """An ONNX model of opset 13 or above, run node by node; every floating-point path passes a gradient."""

    def __init__(self, proto: ModelProto) -> None:
        opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        if opset < 13:
            raise NoTwin(f"opset {opset}: 13 or above is followed")
        self._weights = {weight.name: tensor_of(weight) for weight in proto.graph.initializer}
        self._steps = [_Step(node, opset) for node in proto.graph.node]
        self.inputs = [value.name for value in proto.graph.input if value.name not in self._weights]
        self.outputs = [value.name for value in proto.graph.output]
        self._last = _last_reads(proto.graph)

    def __call__(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name."""
        values: dict[str, Tensor] = {**self._weights, **feeds}
        for number, step in enumerate(self._steps):
            values.update(step.run(values))
            for name in self._last.get(number, ()):
                values.pop(name, None)
        return {name: values[name] for name in self.outputs}


class _Step:
    """One node with its function."""

    def __init__(self, node: NodeProto, opset: int) -> None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise NoTwin(f"operator {node.domain or 'ai.onnx'}.{node.op_type} is not followed")
        self._function: Operator = OPERATORS[node.op_type]
        self._inputs, self._outputs = list(node.input), list(node.output)
        self._node = Node(node.op_type, _attributes(node), opset, len([name for name in node.output if name]))

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The node's outputs by name."""
        try:
            given = self._function(self._node, *(values[name] if name else None for name in self._inputs))
        except NotImplementedError as error:
            raise NoTwin(f"{error} is not followed") from error
        except (IndexError, RuntimeError) as error:
            raise NoTwin(f"{self._node.op} fails on PyTorch: {one_line(error)}") from error
        made = given if isinstance(given, tuple) else (given,)
        return {name: value for name, value in zip(self._outputs, made, strict=False) if name}


def _attributes(node: NodeProto) -> dict[str, Any]:
    if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
        raise NoTwin(f"operator {node.op_type} with a body is not followed")
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _last_reads(graph: GraphProto) -> dict[int, list[str]]:
    """The values that are read for the last time by each node, so that memory does not grow with depth."""
    last: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        last |= dict.fromkeys(node.input, number)
    kept = {value.name for value in graph.output} | {weight.name for weight in graph.initializer}
    ends: dict[int, list[str]] = {}
    for name, number in last.items():
        if name not in kept:
            ends.setdefault(number, []).append(name)
    return ends


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Of the loss by `x`; 0 where nothing joins them."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(loss, x, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope
