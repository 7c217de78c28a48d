"""Which ONNX operators cut a gradient, and between which of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto

from edgemask.models.onnx_names import reads

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}

STEPWISE = frozenset(
    "Round Floor Ceil Sign Greater GreaterOrEqual Less LessOrEqual Equal Not And Or Xor IsNaN IsInf ArgMax ArgMin "
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift NonZero Shape Size QuantizeLinear "
    "NonMaxSuppression Hardmax".split()
)
"""Constant between jumps: the derivative of every output to every input is zero almost everywhere."""

INDEX_INPUTS: dict[str, tuple[int, ...]] = {
    "OneHot": (0, 1),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "ScatterND": (1,),
    "ScatterElements": (1,),
    "Where": (0,),
    "Slice": (1, 2, 3, 4),
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (1, 2, 3),
    "Pad": (1, 3),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Split": (1,),
    "ReduceSum": (1,),
    "CumSum": (1,),
}
"""Inputs that choose, shape or count and pass no gradient; the data operands do."""


def cuts(node: NodeProto, element_types: Mapping[str, int]) -> frozenset[tuple[int, int]]:
    """The (input, output) positions of `node` between which the derivative is zero almost everywhere."""
    inputs, outputs = reads(node), list(node.output)
    every = frozenset((i, o) for i in range(len(inputs)) for o in range(len(outputs)))
    if node.domain not in ("", "ai.onnx"):
        return frozenset()
    if node.op_type in STEPWISE or (node.op_type == "Cast" and _truncates(node, element_types)):
        return every
    if node.op_type == "TopK":
        return frozenset((i, o) for i, o in every if i == 1 or o == 1)
    if "" in node.input:
        return frozenset()
    return frozenset((i, o) for i, o in every if i in INDEX_INPUTS.get(node.op_type, ()))


def _truncates(node: NodeProto, element_types: Mapping[str, int]) -> bool:
    """A cast from real numbers to anything else; between whole numbers and to reals a gradient passes."""
    to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
    return element_types.get(node.input[0]) in _FLOATS and to not in _FLOATS
