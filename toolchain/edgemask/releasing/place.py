"""Where a release runs: architecture, boards, and the packages for each version of Python there."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from edgemask.models import Format
from edgemask.target import Target
from edgemask.wheels import glibc_for, runtime_wheel, wheels_for
from edgemask_runtime.release import WHEELS, Environment

Arch = Literal["aarch64", "x86_64"]


@dataclass(frozen=True)
class Place:
    """`wheels`: the files for each version of Python, the runtime's own among them; `system`: the board's packages."""

    arch: Arch
    boards: tuple[str, ...]
    glibc: str
    wheels: dict[str, tuple[Path, ...]]
    system: tuple[str, ...]

    def all_wheels(self) -> list[Path]:
        """Every file once."""
        return sorted({wheel for wheels in self.wheels.values() for wheel in wheels}, key=lambda wheel: wheel.name)

    def environments(self) -> dict[str, Environment]:
        """As a release states them."""
        named = {python: sorted(f"{WHEELS}{wheel.name}" for wheel in self.wheels[python]) for python in self.wheels}
        return {python: Environment(tuple(files), self.system) for python, files in named.items()}


def place_of(
    target: Target, forms: Collection[Format], extras: Collection[str], *, offline: bool, tell: Callable[[str], None]
) -> Place:
    """The target's place, with wheels for models of these formats and for `extras`; UserError where one is missing."""
    own = runtime_wheel()
    wanted = sorted({extra for form in forms for extra in target.extras(form, extras)})
    wheels = {
        python: (own, *wheels_for(target, python, wanted, offline=offline, progress=tell))
        for python in _pythons(target)
    }
    engines = {target.engines.onnx if form == "onnx" else target.engines.tflite for form in forms}
    system = tuple(sorted(engines & set(target.packages.system)))
    return Place(_arch(target), target.boards, glibc_for(target, wanted), wheels, system)


def _arch(target: Target) -> Arch:
    return cast(Arch, platform.machine() if target.arch == "any" else target.arch)


def _pythons(target: Target) -> tuple[str, ...]:
    """The versions of Python on the target; on any machine, this one's."""
    if target.arch == "any":
        return (f"{sys.version_info.major}.{sys.version_info.minor}",)
    return target.pythons
