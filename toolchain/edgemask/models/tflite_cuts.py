"""Which TFLite builtins cut a gradient, and between which of their inputs and outputs."""

from __future__ import annotations

STEPWISE = frozenset(
    "ROUND FLOOR CEIL SIGN GREATER GREATER_EQUAL LESS LESS_EQUAL EQUAL NOT_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT "
    "ARG_MAX ARG_MIN WHERE SHAPE RANK QUANTIZE FLOOR_DIV BUCKETIZE BITWISE_XOR RIGHT_SHIFT FAKE_QUANT "
    "NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5".split()
)
"""Constant between jumps: the derivative of every output to every input is zero almost everywhere."""

INDEX_INPUTS: dict[str, tuple[int, ...]] = {
    "ONE_HOT": (0, 1),
    "GATHER": (1,),
    "GATHER_ND": (1,),
    "SCATTER_ND": (0, 2),
    "SELECT": (0,),
    "SELECT_V2": (0,),
    "SLICE": (1, 2),
    "SPLIT_V": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "RESHAPE": (1,),
    "TRANSPOSE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "MIRROR_PAD": (1,),
    "SUM": (1,),
    "MEAN": (1,),
    "REDUCE_MAX": (1,),
    "TILE": (1,),
    "TOPK_V2": (1,),
}
"""Inputs that choose, shape or count and pass no gradient; the data operands do."""


def cuts(op: str, inputs: int, outputs: int, *, truncates: bool) -> frozenset[tuple[int, int]]:
    """The (input, output) positions between which `op` is flat; `truncates` marks a cast from real to whole numbers."""
    every = frozenset((i, o) for i in range(inputs) for o in range(outputs))
    if op in STEPWISE or (op == "CAST" and truncates):
        return every
    if op == "TOPK_V2":
        return frozenset((i, o) for i, o in every if i == 1 or o == 1)
    return frozenset((i, o) for i, o in every if i in INDEX_INPUTS.get(op, ()))
