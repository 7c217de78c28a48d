"""Inference engines behind one lazy table: only the one that is chosen is imported."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from edgemask_runtime.engines.tensors import Array, EngineInfo, TensorInfo
from edgemask_runtime.errors import UserError, unknown

__all__ = ["ENGINES", "Array", "Engine", "EngineInfo", "TensorInfo", "available", "open_engine"]


class Engine(Protocol):
    """A loaded model: `run` takes exactly `inputs` and gives all of `outputs`, both by name."""

    @property
    def info(self) -> EngineInfo:
        """Its name in the table, its version, and the provider in use."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model gives."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; UserError when the feeds do not fit or the engine fails."""

    def tensor(self, name: str) -> Array:
        """Return an intermediate of the last run; UserError where the engine keeps none."""


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine's code is, which package it needs, the extra that brings it and the format it runs."""

    factory: str
    package: str
    extra: str
    format: Literal["onnx", "tflite"]


_TFLITE = "edgemask_runtime.engines.tflite_engine:TfliteEngine"

ENGINES: dict[str, EngineEntry] = {
    "onnxruntime": EngineEntry(
        "edgemask_runtime.engines.onnxruntime_engine:OnnxruntimeEngine", "onnxruntime", "onnxruntime", "onnx"
    ),
    "litert": EngineEntry(_TFLITE, "ai_edge_litert", "litert", "tflite"),
    "tflite": EngineEntry(_TFLITE, "tflite_runtime", "tflite", "tflite"),
}


def open_engine(
    name: str,
    model: bytes | Path,
    *,
    threads: int = 1,
    preserve_all_tensors: bool = False,
    providers: Sequence[str] = (),
    cache: Path | None = None,
) -> Engine:
    """Load a model, given as bytes or as a path, on the engine of that name.

    `preserve_all_tensors` keeps every intermediate for `Engine.tensor` (TFLite engines only, slower).
    `providers`, the best first, are those of ONNX Runtime that may run it (the CPU if none is named), `cache` a folder
    for what they build. UserError: unknown engine, engine not installed, a model that it does not load, or no provider.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    entry = ENGINES[name]
    if not _installed(entry):
        raise UserError(f"engine {name!r} is not installed", hint=f"pip install 'edgemask-runtime[{entry.extra}]'")
    module, _, attribute = entry.factory.partition(":")
    factory: Any = getattr(importlib.import_module(module), attribute)
    engine: Engine = factory(
        name, model, threads=threads, preserve_all_tensors=preserve_all_tensors, providers=providers, cache=cache
    )
    return engine


def available() -> list[str]:
    """Return the names of the engines whose packages are installed."""
    return [name for name, entry in ENGINES.items() if _installed(entry)]


def engines_for(model_format: str) -> list[str]:
    """Return the names of the engines that run models of this format."""
    return [name for name, entry in ENGINES.items() if entry.format == model_format]


def _installed(entry: EngineEntry) -> bool:
    return importlib.util.find_spec(entry.package) is not None
