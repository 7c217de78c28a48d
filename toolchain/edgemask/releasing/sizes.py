"""What takes how much of a release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgemask_runtime.release import MODELS, WHEELS, ReleaseManifest

BYTES_PER_MB = 1_000_000
OWN = f"{WHEELS}edgemask_runtime-"


@dataclass(frozen=True)
class Sizes:
    """Bytes: of each model, of edgemask's own runtime, of the wheels of each Python, and of all else."""

    total: int
    models: dict[str, int]
    runtime: int
    wheels: dict[str, int]
    rest: int

    @property
    def without_wheels(self) -> int:
        """All that is not of others' making: models, the runtime, units, settings, papers."""
        return sum(self.models.values()) + self.runtime + self.rest

    def to_json(self) -> dict[str, Any]:
        """Plain data, in bytes."""
        return {
            "total": self.total,
            "without_wheels": self.without_wheels,
            "models": self.models,
            "runtime": self.runtime,
            "wheels": self.wheels,
            "rest": self.rest,
        }

    def rows(self) -> list[tuple[str, str]]:
        """What, and MB of it; a wheel that several versions of Python share counts in each, and once in the total."""
        named = [(f"model {name}", size) for name, size in self.models.items()]
        named += [("edgemask-runtime", self.runtime), ("units, settings, SBOM, evidence", self.rest)]
        named += [(f"wheels for Python {python}", size) for python, size in self.wheels.items()]
        named += [("without others' wheels", self.without_wheels), ("all", self.total)]
        return [(what, f"{size / BYTES_PER_MB:.2f}") for what, size in named]


def sizes_of(manifest: ReleaseManifest) -> Sizes:
    """Measure the files that a manifest lists."""
    files = {name: record.bytes for name, record in manifest.files.items()}
    models = {name: files[model.file] for name, model in manifest.models.items()}
    wheels = {
        python: _sum(files, (wheel for wheel in environment.wheels if not wheel.startswith(OWN)))
        for python, environment in manifest.environments.items()
    }
    runtime = _sum(files, (name for name in files if name.startswith(OWN)))
    rest = _sum(files, (name for name in files if not name.startswith((MODELS, WHEELS))))
    return Sizes(sum(files.values()), models, runtime, wheels, rest)


def _sum(files: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(files[name] for name in names)
