"""Targets as people read them, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgemask.listing import columns
from edgemask.target import Target, find_target, targets


def target_list() -> list[dict[str, Any]]:
    """Every target as plain data."""
    return [target_values(target) for target in targets().values()]


def target_values(target: Target) -> dict[str, Any]:
    """One target as plain data."""
    return {**asdict(target), "pythons": target.pythons, "glibc": target.glibc}


def targets_text() -> str:
    """The targets as a table; a family stands before its members."""
    known = targets()
    heads = [target for target in known.values() if target.family is None]
    ordered = [target for head in heads for target in (head, *(known[name] for name in head.members))]
    rows = [_row(target) for target in ordered]
    return columns(("target", "CPU", "memory", "Python", "runs on", "what it is"), rows)


def target_text(name: str) -> str:
    """One target in detail."""
    target = find_target(name)
    rows = [(key, value) for key, value in _facts(target) if value]
    width = max(len(key) for key, _ in rows)
    return "\n".join([f"{target.name}: {target.title}", "", *(f"{key.ljust(width)}  {value}" for key, value in rows)])


def _row(target: Target) -> Sequence[object]:
    name = f"  {target.name}" if target.family else target.name
    runs = ", ".join(target.engines.providers)
    return (name, target.cpu, _memory(target.memory_mb), ", ".join(target.pythons), runs, target.title)


def _facts(target: Target) -> list[tuple[str, str]]:
    engines, camera, packages = target.engines, target.camera, target.packages
    return [
        ("family", target.family or ""),
        ("members", ", ".join(target.members)),
        ("architecture", target.arch),
        ("CPU", f"{target.cpu} ({' '.join(target.features)})" if target.features else target.cpu),
        ("memory", f"{_memory(target.memory_mb)} or more" if target.memory_mb else ""),
        *((f"system {i}", f"{s.name}: Python {s.python}, glibc {s.glibc}") for i, s in enumerate(target.systems, 1)),
        ("ONNX", f"{engines.onnx} on {', '.join(engines.providers)}"),
        ("", f"and, where the recipe names it, on {', '.join(engines.on_request)}" if engines.on_request else ""),
        ("TFLite", f"{engines.tflite} on the CPU{_asked(target)}"),
        ("extras", ", ".join(packages.extras)),
        ("board's own", ", ".join(packages.system)),
        ("camera", f"{camera.kind}, {camera.format} {camera.width}x{camera.height}"),
        ("budget", f"{target.budget.latency_ms} ms from frame to answer, {_memory(target.budget.memory_mb)}"),
        (
            "power modes",
            f"{', '.join(target.power.modes)}; shipped with {target.power.shipped}" if target.power else "",
        ),
        ("unit", f"edgemaskd-{target.unit}.service"),
        ("flashed as", {"none": "", "any": "any Linux"}.get(target.flash, target.flash)),
        *((("boards" if i == 0 else "", board)) for i, board in enumerate(target.boards)),
        ("boards", "" if target.boards else "any"),
    ]


def _asked(target: Target) -> str:
    return "" if "cpu" in target.engines.providers else ", where the recipe names it"


def _memory(megabytes: int | None) -> str:
    if megabytes is None:
        return "any"
    return f"{megabytes // 1024} GB" if megabytes % 1024 == 0 else f"{megabytes} MB"
