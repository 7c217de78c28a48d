"""Trained models: read, described, and grafted behind a chain, whatever their format."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgemask.chain import Chain, Rewritten
from edgemask.errors import UserError
from edgemask.models.card import Card
from edgemask.steps import Rewrite
from edgemask_runtime.bundle import SourceRecord
from edgemask_runtime.engines import Engine, TensorInfo, open_engine
from edgemask_runtime.files import read_bytes

Format = Literal["onnx", "tflite"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
MAX_MODEL_BYTES = 1 << 31
METADATA_KEY = "edgemask"
ENTROPY = "entropy"
RESERVED = ("frame", ENTROPY, "key")
"""The inputs of a baked file; the model's own tensors of these names are renamed."""


@dataclass(frozen=True)
class Node:
    """An operator of a file's graph, as the proof walks it; tensors go by name.

    `step` is the step that it belongs to ("2.jpeg"), None for the model's own. `cuts` holds the positions
    (input, output) between which the derivative is zero almost everywhere; all other pairs pass a gradient.
    """

    op: str
    step: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cuts: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Graph:
    """Nodes in an order that runs; `outputs` maps each output's public name to the tensor that holds it."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: dict[str, str]


class Model(ABC):
    """A model file, trained or baked, held in memory."""

    format: ClassVar[Format]
    engine: ClassVar[str]

    def __init__(self, path: Path, data: bytes, origin: SourceRecord | None = None) -> None:
        self.path = path
        self.data = data
        self._origin = origin
        self._sized: dict[tuple[int, ...], tuple[TensorInfo, ...]] = {}

    @cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def origin(self) -> SourceRecord:
        """The trained model as its owner has it: this file, or the one that it was converted from."""
        return self._origin or SourceRecord(self.path.name, self.sha256, None)

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes; weights are no inputs."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model gives."""

    def outputs_for(self, sample: tuple[int, ...]) -> tuple[TensorInfo, ...]:
        """What the model gives for samples of this shape; sizes that hang on more than the input's stay free.

        Tried on two inputs, where the file leaves sizes open: exporters write them as formulas.
        """
        if all(None not in info.shape[1:] for info in self.outputs):
            return self.outputs
        if sample not in self._sized:
            self._sized[sample] = self._tried(sample)
        return self._sized[sample]

    def _tried(self, sample: tuple[int, ...]) -> tuple[TensorInfo, ...]:
        engine, taken = self.open(), self.inputs[0]
        shape = (taken.shape[0] or 1, *sample)
        inputs = [np.zeros(shape, taken.dtype), np.random.default_rng(0).integers(0, 99, shape).astype(taken.dtype)]
        one, other = (engine.run({taken.name: values}) for values in inputs)
        return tuple(
            replace(info, shape=(info.shape[0], *_agreed(one[info.name].shape[1:], other[info.name].shape[1:])))
            for info in self.outputs
        )

    @property
    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """The file's own metadata, text by name; a baked file says under `edgemask` what was baked."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, where the file states them."""

    def require_trained(self) -> None:
        """UserError when this file was baked before: its steps could not be told from new ones."""
        if METADATA_KEY in self.metadata:
            raise UserError(f"{self.path}: baked already", "bake the model that it was made of")

    def whole(self) -> bytes:
        """The file with everything in it that lies beside it."""
        return self.data

    @abstractmethod
    def sums_whole_numbers(self) -> bool:
        """Whether it is quantised: processors differ in how they add up int8."""

    @abstractmethod
    def graph(self) -> Graph:
        """The file's own graph."""

    @abstractmethod
    def graft(self, chain: Chain, metadata: str, published_key: bytes | None = None, card: Card | None = None) -> bytes:
        """A file of the same format with `chain` around this model, and `metadata` in it under `edgemask`.

        A published key becomes the constant `key` in place of the input. `card` is told in the format's own terms.
        """

    @abstractmethod
    def constant(self, name: str) -> NDArray[np.uint8] | None:
        """The constant of bytes called `name`, if there is one."""

    @abstractmethod
    def rewritten(self, rewrites: Sequence[Rewritten]) -> Model:
        """This model with `rewrites` in it and nothing around it; `entropy` is an input if they need any."""

    @abstractmethod
    def rewrite_bytes(self, rewrites: Sequence[Rewrite]) -> list[int]:
        """The bytes of entropy that each of `rewrites` needs for all the nodes of this model that it matches."""

    @abstractmethod
    def probe(self, tensors: Sequence[str]) -> tuple[bytes, dict[str, str]]:
        """This file with `tensors` as further outputs, and the name under which the engine gives each."""

    def open(self, *, threads: int = 1) -> Engine:
        """The model on its engine."""
        return open_engine(self.engine, self.whole(), threads=threads)


def _agreed(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def read_model(path: Path) -> Model:
    """Read a model file; UserError when it is none, is truncated or is not of a known format."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: '{suffix}' is no model format", f"allowed: {', '.join(SUFFIXES)}")
    return model_of(SUFFIXES[suffix], path, read_bytes(path, limit_bytes=MAX_MODEL_BYTES))


def model_of(form: Format, path: Path, data: bytes, origin: SourceRecord | None = None) -> Model:
    """The model in `data`, which came from `path`; `origin` is what it was converted from."""
    if form == "onnx":
        from edgemask.models.onnx import OnnxModel

        return OnnxModel(path, data, origin)
    from edgemask.models.tflite import TfliteModel
    from edgemask.models.trial import refusal

    if reason := refusal(data):
        raise UserError(f"{path}: no sound TFLite model: {reason}", "export or copy it again")
    return TfliteModel(path, data, origin)
