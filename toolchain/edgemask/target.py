"""Targets: the boards that bundles are built for, as data under targets/."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import tomllib

from edgemask.errors import Faults, UserError, structure, unknown
from edgemask.models import Format
from edgemask.params import param
from edgemask_runtime.manifest import Provider

_CHECKOUT = Path(__file__).parents[2] / "targets"


@dataclass(frozen=True)
class Engines:
    """The engine that runs each format on this board; `providers` are ONNX Runtime's, the best first."""

    onnx: Literal["onnxruntime"]
    tflite: Literal["litert", "tflite"]
    providers: tuple[Provider, ...]

    def allowed(self, form: Format, wanted: tuple[Provider, ...]) -> tuple[Provider, ...]:
        """Those of the providers that may run a model of this format: the wanted ones, in their order, or all.

        UserError when a wanted one is not the board's.
        """
        if foreign := [name for name in wanted if name not in self.providers]:
            allowed = ", ".join(self.providers)
            raise UserError(f"[runtime] providers: {foreign[0]!r} is not one of the target's", f"allowed: {allowed}")
        return (wanted or self.providers) if form == "onnx" else ()


@dataclass(frozen=True)
class Budget:
    """What an answer may cost on this board."""

    latency_ms: int = param(doc="time from frame to answer", low=1)
    memory_mb: int = param(doc="memory of the daemon", low=1)


@dataclass(frozen=True)
class Target:
    """A board, or a family of boards that runs the same bundle."""

    schema: Literal[1]
    name: str
    title: str
    arch: Literal["any", "aarch64", "x86_64", "armv7l"]
    python: str
    engines: Engines
    budget: Budget


def targets() -> dict[str, Target]:
    """Every target there is, by name."""
    files = (folder / "target.toml" for folder in targets_folder().iterdir() if folder.is_dir())
    found = [_read(file) for file in files if file.is_file()]
    return {target.name: target for target in sorted(found, key=lambda target: target.name)}


def find_target(name: str) -> Target:
    """The target of this name; UserError with the closest match."""
    known = targets()
    if name not in known:
        raise unknown("target", name, known)
    return known[name]


def targets_folder() -> Traversable:
    """The folder of targets: inside the installed package, or beside the toolchain in a checkout."""
    packaged = importlib.resources.files("edgemask") / "targets"
    return packaged if packaged.is_dir() else _CHECKOUT


def _read(file: Traversable) -> Target:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from error
    faults = Faults(str(file))
    target: Target | None = structure(Target, values, "$", faults)
    if target is None or faults:
        raise faults.error("see docs/targets.md for what a target states")
    return target
