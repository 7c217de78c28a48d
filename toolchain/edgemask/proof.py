"""The proof: which paths from the frame to the model carry no gradient, and whose doing that is.

The frame is relaxed to real numbers. A path is cut where an operator is constant between jumps (Round, comparisons, a
cast to whole numbers) or only takes an index. This says nothing about an attacker who puts a surrogate in the cut's
place (Athalye et al. 2018) or lifts the model out at `lift_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from typing import Any

from edgemask.models import Graph, Node
from edgemask.steps import Role, registry

FRAME = "frame"
_KIND_ROLES: dict[str, Role] = {"input": "model"}


@dataclass(frozen=True)
class OutputProof:
    """One output: whether every path from the frame to it is cut, and by which nodes."""

    cut: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """What the graph shows.

    `masked`: masks alone cut every path from the frame to the model's first node. `cut_by`: the masks that do.
    `steps`: for each step whether it alone cuts every path through it. `lift_at`: the tensors where the model, with its
    full gradient, can be lifted out by whoever holds the file.
    """

    masked: bool
    cut_by: tuple[str, ...]
    lift_at: tuple[str, ...]
    steps: dict[str, bool]
    outputs: dict[str, OutputProof]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def prove(graph: Graph) -> Proof:
    """Walk the file's own graph from the frame."""
    masks_only = _flow(graph, lambda node: _role(node) == "mask")
    lift_at = tuple(tensor for tensor in _entries(graph) if tensor in _flow(graph, lambda node: False))
    masked = FRAME in graph.inputs and bool(lift_at) and not masks_only.intersection(lift_at)
    names = list(dict.fromkeys(node.step for node in graph.nodes if node.step and _role(node)))
    steps = {name: _cuts_alone(graph, name, lift_at) for name in names}
    of_masks = (node for node in graph.nodes if _role(node) == "mask")
    cutters = {node.step for node in of_masks if _cuts_flow(node, masks_only, node.outputs)}
    cut_by = tuple(name for name in names if name in cutters) if masked else ()
    return Proof(masked, cut_by, lift_at, steps, _outputs(graph))


def _flow(graph: Graph, respects: Callable[[Node], bool]) -> set[str]:
    """The tensors that a gradient path joins to the frame, when only the cuts of some nodes count.

    A file that was not baked has no frame: then all of its inputs take its place.
    """
    joined = {FRAME} & set(graph.inputs) or set(graph.inputs)
    for node in graph.nodes:
        cuts = node.cuts if respects(node) else frozenset()
        live = [position for position, name in enumerate(node.inputs) if name in joined]
        joined |= {name for o, name in enumerate(node.outputs) if any((i, o) not in cuts for i in live)}
    return joined


def _entries(graph: Graph) -> list[str]:
    """The tensors that the model's own nodes take from the chain in front."""
    made = {name for node in graph.nodes if _in_model(node) for name in node.outputs}
    read = (name for node in graph.nodes if _in_model(node) for name in node.inputs)
    return [name for name in dict.fromkeys(read) if name not in made]


def _cuts_alone(graph: Graph, step: str, entries: tuple[str, ...]) -> bool:
    """Whether the cuts of this step alone part the frame from everything behind the step."""
    behind = {name for node in graph.nodes if node.step == step for name in node.outputs}
    ends = {name for node in graph.nodes if node.step != step for name in node.inputs if name in behind}
    ends |= behind & (set(graph.outputs.values()) | set(entries))
    return bool(ends) and not _flow(graph, lambda node: node.step == step) & ends


def _cuts_flow(node: Node, joined: set[str], behind: Container[str]) -> bool:
    """Whether the node cuts the frame's flow into one of the tensors `behind`."""
    return any(node.inputs[i] in joined and node.outputs[o] in behind for i, o in node.cuts)


def _outputs(graph: Graph) -> dict[str, OutputProof]:
    joined = _flow(graph, lambda node: True)
    found: dict[str, OutputProof] = {}
    for name, tensor in graph.outputs.items():
        upstream = _upstream(graph, tensor)
        nodes = tuple(_label(node) for node in graph.nodes if _cuts_flow(node, joined, upstream))
        found[name] = OutputProof(tensor not in joined, nodes)
    return found


def _upstream(graph: Graph, tensor: str) -> set[str]:
    """The tensors that `tensor` is computed from, itself included."""
    found = {tensor}
    for node in reversed(graph.nodes):
        if found & set(node.outputs):
            found |= set(node.inputs)
    return found


def _in_model(node: Node) -> bool:
    """Whether it is the model's own or stands in place of one."""
    return node.step is None or (_role(node) == "model" and node.step.partition(".")[2] not in _KIND_ROLES)


def _label(node: Node) -> str:
    return f"{node.step or 'model'}: {node.op} {node.outputs[0]}"


def _role(node: Node) -> Role | None:
    """The role of the step that a node belongs to; None for the model's own and for glue."""
    kind = node.step.partition(".")[2] if node.step else ""
    step = registry().get(kind)
    return step.role if step else _KIND_ROLES.get(kind)
