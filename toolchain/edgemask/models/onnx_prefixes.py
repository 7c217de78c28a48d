"""A baked ONNX file cut behind each of its steps: timed alone, the parts tell what a step takes and nothing watches."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgemask.ops.scope import owner

MODEL = "model"


def prefixes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """From the file's start to the end of each stretch of nodes of one step: its step, and that part as a file.

    The last one is the whole graph.
    """
    model = onnx.load_model_from_string(data)
    nodes, outputs = list(model.graph.node), list(model.graph.output)
    steps = [_step(node) for node in nodes]
    for end, step in enumerate(steps, 1):
        if end == len(steps):
            yield step, data
        elif steps[end] != step:
            wanted = {name for node in nodes[end:] for name in _taken(node)} | {info.name for info in outputs}
            given = [name for node in nodes[:end] for name in node.output if name in wanted]
            del model.graph.node[:], model.graph.output[:]
            model.graph.node.extend(nodes[:end])
            # Why no types: ONNX Runtime finds them by itself.
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in given)
            yield step, model.SerializeToString()


def _step(node: onnx.NodeProto) -> str:
    found = owner(node.name)
    return found if found and found[0].isdigit() else MODEL


def _taken(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, and what the graphs inside it take from outside."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _taken(inner)
