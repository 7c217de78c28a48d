"""A baked TFLite file cut behind each of its steps: LiteRT has no profiler in Python, and nothing watches parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgemask.models.flatbuffer import pack, unpack
from edgemask.ops.scope import owner
from edgemask.ops.tflite import text

MODEL = "model"


def prefixes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """From the file's start to the end of each stretch of operators of one step: its step, and that part as a file.

    The last one is the whole graph.
    """
    subgraph = unpack(data).subgraphs[0]
    steps = [_step(operator, subgraph) for operator in subgraph.operators]
    for end, step in enumerate(steps, 1):
        if end == len(steps) or steps[end] != step:
            yield step, _cut(data, end)


def _step(operator: schema.OperatorT, subgraph: schema.SubGraphT) -> str:
    found = owner(text(subgraph.tensors[operator.outputs[0]].name)) if len(operator.outputs) else None
    return found if found and found[0].isdigit() else MODEL


def _cut(data: bytes, end: int) -> bytes:
    """The first `end` operators, giving what later ones or the caller take of theirs."""
    model = unpack(data)
    main = model.subgraphs[0]
    kept, rest = main.operators[:end], main.operators[end:]
    wanted = {int(index) for operator in rest for index in operator.inputs} | {int(index) for index in main.outputs}
    main.operators = kept
    main.outputs = [index for operator in kept for index in _given(operator) if index in wanted]
    model.signatureDefs, model.metadata = [], []
    return pack(model)


def _given(operator: Any) -> list[int]:
    return [int(index) for index in operator.outputs]
