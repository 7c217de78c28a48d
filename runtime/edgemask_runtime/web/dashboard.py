"""What the page and the metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgemask_runtime import __version__
from edgemask_runtime.about import About
from edgemask_runtime.api.doors import Door
from edgemask_runtime.errors import ModelDown
from edgemask_runtime.telemetry import Telemetry
from edgemask_runtime.web.machine import memory_bytes, powers, temperatures
from edgemask_runtime.web.screen import Screen


@dataclass(frozen=True)
class Dashboard:
    """The daemon's counts, and the screen of every pipeline."""

    telemetry: Telemetry
    screens: Mapping[str, Screen] = field(default_factory=dict)

    def status(self, doors: list[Door]) -> dict[str, Any]:
        """All that is counted, by pipeline and model, and the machine's state, as plain values."""
        told = self.telemetry.to_dict()
        models = {door.name: told["models"].get(door.name, {}) | _loaded(door) for door in doors}
        machine = {"memory_bytes": self.memory(doors), "celsius": temperatures(), "watts": powers()}
        return {"version": __version__, **told, "models": models, "machine": machine}

    def memory(self, doors: list[Door]) -> dict[str, int]:
        """Bytes of the daemon itself and of each model's process."""
        found = {"daemon": memory_bytes()}
        for door in doors:
            process = getattr(door.served, "process_id", None)
            found[door.name] = memory_bytes(process) if process else None
        return {name: count for name, count in found.items() if count is not None}


def loaded(door: Door) -> About | None:
    """What a door's model is; None of one that was never ready."""
    try:
        return door.served.about
    except ModelDown:
        return None


def _loaded(door: Door) -> dict[str, Any]:
    """What a model is, as plain values."""
    about = loaded(door)
    if about is None:
        return {}
    engine, frame = asdict(about.engine), asdict(about.manifest.frame)
    return {"digest": about.digest, "target": about.manifest.target, "engine": engine, "frame": frame}
