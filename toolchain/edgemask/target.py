"""Targets: the boards that bundles and releases are built for, as data under targets/."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from edgemask.errors import Rule, UserError, unknown
from edgemask.models import Format
from edgemask.params import param
from edgemask_runtime.formats import Colour
from edgemask_runtime.manifest import Provider
from edgemask_runtime.release import BOARD
from edgemask_runtime.strict_json import matching

_CHECKOUT = Path(__file__).parents[2] / "targets"
_SOME = Rule("one or more", bool).metadata
_BOARDS = Rule(
    "device-tree strings, in small letters: raspberrypi,5-model-b",
    lambda names: all(re.fullmatch(BOARD, name) for name in names),
).metadata


@dataclass(frozen=True)
class Engines:
    """The engine that runs each format on this board.

    `providers` are ONNX Runtime's, the best first; those `on_request` are taken only where a recipe names them.
    """

    onnx: Literal["onnxruntime"]
    tflite: Literal["litert"]
    providers: tuple[Provider, ...] = field(metadata=_SOME)
    on_request: tuple[Provider, ...] = ()

    def allowed(self, form: Format, wanted: tuple[Provider, ...]) -> tuple[Provider, ...]:
        """Those of the providers that may run a model of this format: the wanted ones, in their order, or the target's.

        UserError when a wanted one is not the board's, and for a format that only the CPU runs where that must be
        asked for.
        """
        known = (*self.providers, *self.on_request)
        if foreign := [name for name in wanted if name not in known]:
            hint = f"allowed: {', '.join(known)}"
            raise UserError(f"[runtime] providers: {foreign[0]!r} is not one of the target's", hint)
        chosen = wanted or self.providers
        if form != "onnx" and "cpu" not in chosen:
            hint = 'take an ONNX model, or allow it in the recipe: [runtime] providers = ["cpu"]'
            raise UserError(f"a {form} model runs on the CPU alone, and this board is for its GPU", hint)
        return chosen if form == "onnx" else ()


@dataclass(frozen=True)
class System:
    """An operating system that the board runs, with the versions that decide which wheels fit."""

    name: str
    python: str = field(metadata=matching(r"3\.[0-9]{1,2}"))
    glibc: str = field(metadata=matching(r"2\.[0-9]{1,3}"))


@dataclass(frozen=True)
class Packages:
    """What a release brings beside the model's engine: extras of edgemask-runtime.

    `system`: what it does not bring, for the board's own system must have it.
    """

    extras: tuple[str, ...] = ()
    system: tuple[Literal["onnxruntime"], ...] = ()


@dataclass(frozen=True)
class CameraDefault:
    """The camera that settings name if nobody says otherwise."""

    kind: Literal["v4l2", "gstreamer", "picamera2"]
    format: Colour
    width: int = param(doc="pixels", low=1)
    height: int = param(doc="pixels", low=1)


@dataclass(frozen=True)
class Budget:
    """What an answer may cost on this board: a goal, not a measurement."""

    latency_ms: int = param(doc="time from frame to answer", low=1)
    memory_mb: int = param(doc="memory of the daemon", low=1)


@dataclass(frozen=True)
class Power:
    """nvpmodel's modes by name, for their numbers differ by module and JetPack; `shipped` is NVIDIA's default."""

    modes: tuple[str, ...] = field(metadata=_SOME)
    shipped: str


@dataclass(frozen=True)
class Target:
    """A board, or a family of boards that runs the same release.

    `boards` are "compatible" strings of device trees, none for any board. `features` of the CPU are /proc/cpuinfo's.
    A family has what holds for every member: the features that all have, the least memory, the longest latency.
    """

    schema: Literal[1]
    name: str
    title: str
    arch: Literal["any", "aarch64", "x86_64"]
    engines: Engines
    systems: tuple[System, ...] = field(metadata=_SOME)
    packages: Packages
    camera: CameraDefault
    budget: Budget
    unit: Literal["cpu", "cuda"]
    flash: Literal["none", "any", "raspberry-pi-os", "jetpack"]
    family: str | None = None
    cpu: str = "any"
    features: tuple[str, ...] = ()
    memory_mb: int | None = param(None, doc="memory of the smallest board", low=64)
    boards: tuple[str, ...] = field(default=(), metadata=_BOARDS)
    power: Power | None = None
    members: tuple[str, ...] = ()

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python versions of its systems, oldest first."""
        return tuple(sorted({system.python for system in self.systems}, key=versions))

    @property
    def glibc(self) -> str:
        """The oldest of its systems' glibc."""
        return min((system.glibc for system in self.systems), key=versions)

    def extras(self, form: Format, wanted: Iterable[str] = ()) -> set[str]:
        """The extras of edgemask-runtime whose wheels a release with a model of this format brings."""
        engine = self.engines.onnx if form == "onnx" else self.engines.tflite
        return {engine, "install", *self.packages.extras, *wanted} - set(self.packages.system)


def versions(text: str) -> tuple[int, ...]:
    """A version of numbers, to be compared."""
    return tuple(map(int, text.split(".")))


def targets() -> dict[str, Target]:
    """Every target there is, by name; UserError names every fault of every one."""
    from edgemask.families import read_targets

    return read_targets(targets_folder())


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
