"""Renaming of tensors in ONNX graphs, bodies of If, Loop and Scan included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import AttributeProto, GraphProto, NodeProto


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def reads(node: NodeProto) -> list[str]:
    """All tensors that a node reads, those captured by its bodies included."""
    names = [name for name in node.input if name]
    for body in bodies(node):
        inner = _defined(body)
        names += [name for child in body.node for name in reads(child) if name not in inner]
        names += [value.name for value in body.output if value.name not in inner]
    return names


def rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Give tensors other names wherever the nodes and their bodies use them."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in bodies(node):
            _rename_body(body, names)


def copies(nodes: Iterable[NodeProto], names: Mapping[str, str], prefix: str) -> list[NodeProto]:
    """The same nodes once more, on renamed tensors and with `prefix` before their names, where they have any."""
    copied: list[NodeProto] = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}{node.name}" if node.name else ""
        copied.append(copy)
    rename(copied, names)
    return copied


def _rename_body(body: GraphProto, names: Mapping[str, str]) -> None:
    inner = _defined(body)
    outer = {old: new for old, new in names.items() if old not in inner}
    rename(body.node, outer)
    for value in body.output:
        value.name = outer.get(value.name, value.name)


def _defined(body: GraphProto) -> set[str]:
    made = {name for node in body.node for name in node.output}
    return made | {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
