"""A baked file and what it says of itself: the label that lies in it under `edgemask`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemask.chain import Chain, Tail
from edgemask.errors import Faults, UserError, structure
from edgemask.models import METADATA_KEY, Model, read_model
from edgemask.steps import Role, Step
from edgemask_runtime.archive import NAME
from edgemask_runtime.bundle import EntropyInput, FrameInput, KeyInput, OutputRecord, SourceRecord
from edgemask_runtime.manifest import check_frame
from edgemask_runtime.strict_json import matching, parse

FRAME, ENTROPY, KEY = "frame", "entropy", "key"


@dataclass(frozen=True)
class StepNote:
    """A step as the file states it."""

    kind: str
    role: Role
    parameters: dict[str, Any]
    takes: str
    gives: str
    entropy_bytes: int
    key_bytes: int


@dataclass(frozen=True)
class Label:
    """What was baked, in schema 1. It claims nothing that the graph itself can show."""

    schema: Literal[1]
    edgemask: str
    name: str = field(metadata=matching(NAME))
    source: SourceRecord
    frame: FrameInput
    entropy: EntropyInput | None
    key: KeyInput | None
    chain: tuple[StepNote, ...]
    outputs: tuple[OutputRecord, ...]
    labels: tuple[str, ...] | None
    thresholds: dict[str, float]
    assumed: tuple[str, ...]

    def to_json(self) -> str:
        """One line, sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Artefact:
    """A baked model and its label."""

    model: Model
    label: Label

    @property
    def published_key(self) -> NDArray[np.uint8] | None:
        """The key that lies in the file, where its label says that one does: uint8 [1, bytes]."""
        return self.model.constant(KEY) if self.label.key and self.label.key.published else None


def read_artefact(path: Path) -> Artefact:
    """Read a baked file; UserError when it is no model, or was not baked."""
    return as_artefact(read_model(path))


def as_artefact(model: Model) -> Artefact:
    """The baked file that `model` is; UserError when it was not baked or its label is broken."""
    if METADATA_KEY not in model.metadata:
        raise UserError(f"{model.path} was not baked by edgemask", "`edgemask bake MODEL -o OUT` makes such a file")
    where = f"{model.path}: {METADATA_KEY}"
    faults = Faults(where)
    label: Label | None = structure(Label, parse(model.metadata[METADATA_KEY], where), "$", faults)
    if label is not None:
        _check_graph(label, model, faults)
    if label is None or faults:
        raise faults.error("bake the model again")
    return Artefact(model, label)


def _check_graph(label: Label, model: Model, faults: Faults) -> None:
    """Check that the graph takes and gives what the label states."""
    frame, entropy, key = label.frame, label.entropy, label.key
    check_frame(frame, faults)
    stated: dict[str, tuple[int | None, ...]] = {FRAME: (frame.batch, *frame.shape)}
    if entropy:
        stated[ENTROPY] = (frame.batch, entropy.bytes)
    if key and not key.published:
        stated[KEY] = (frame.batch, key.bytes)
    found = {info.name: info.shape for info in model.inputs if info.dtype == "uint8"}
    named = {frame.name, *([entropy.name] if entropy else []), *([key.name] if key and not key.published else [])}
    if found != stated or named != stated.keys() or len(found) < len(model.inputs):
        faults.add("$.frame", "not what the graph takes", allowed="; ".join(map(str, model.inputs)))
    _check_published(key, model, faults)
    if [record.name for record in label.outputs] != [info.name for info in model.outputs]:
        faults.add("$.outputs", "not what the graph gives", allowed="; ".join(map(str, model.outputs)))


def _check_published(key: KeyInput | None, model: Model, faults: Faults) -> None:
    found = model.constant(KEY) if key and key.published else None
    if key and key.published and (key.name != KEY or found is None or found.shape != (1, key.bytes)):
        faults.add("$.key", "no such constant in the graph")


def notes(chain: Chain) -> tuple[StepNote, ...]:
    """The chain's steps as the label states them."""
    links = [
        _note(link.step, str(link.takes), str(link.gives), _size(link.entropy), _size(link.key)) for link in chain.links
    ]
    befores = [[info.name for info in chain.model_outputs], *(list(tail.gives) for tail in chain.tails)]
    tails = [
        _note(tail.step, ", ".join(before), ", ".join(_made(tail, before)))
        for tail, before in zip(chain.tails, befores, strict=False)
    ]
    inside = [
        _note(rewritten.step, "activations", "activations", _size(rewritten.entropy)) for rewritten in chain.rewrites
    ]
    return (*links, *inside, *tails)


def _made(tail: Tail, before: Sequence[str]) -> list[str]:
    """The outputs that a step adds; all that it leaves, where it takes some away or another's place."""
    gives = list(tail.gives)
    return gives if tail.step.replaces else [name for name in gives if name not in before]


def _note(step: Step, takes: str, gives: str, entropy_bytes: int = 0, key_bytes: int = 0) -> StepNote:
    return StepNote(step.kind, step.role, step.parameters(), takes, gives, entropy_bytes, key_bytes)


def _size(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0]
