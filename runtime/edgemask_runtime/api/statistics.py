"""How many requests a model answered and how long each part of that took, as Triton's clients ask for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

NS_PER_MS = 1_000_000
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """A count and the nanoseconds of all together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.ns += ns

    def to_dict(self) -> dict[str, int]:
        """Return it as the protocol writes it."""
        return {"count": self.count, "ns": self.ns}


@dataclass(frozen=True)
class Spent:
    """The nanoseconds of one request: waiting, decoding, running the model, encoding."""

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.queue + self.compute_input + self.compute_infer + self.compute_output


def _parts() -> dict[str, Duration]:
    return {name: Duration() for name in PARTS}


@dataclass
class Statistics:
    """The counts of one model since the daemon started; any thread may add to them."""

    frames: int = 0
    last_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    parts: dict[str, Duration] = field(default_factory=_parts)
    batches: dict[int, dict[str, Duration]] = field(default_factory=dict)
    _entered: Lock = field(default_factory=Lock)

    def answered(self, frames: int, spent: Spent) -> None:
        """Count a request of so many frames."""
        with self._entered:
            self.frames += frames
            self.last_ms = time.time_ns() // NS_PER_MS
            self.success.add(spent.total)
            batch = self.batches.setdefault(frames, _parts())
            for name in PARTS:
                self.parts[name].add(getattr(spent, name))
                batch[name].add(getattr(spent, name))

    def failed(self, ns: int) -> None:
        """Count a request that got no answer."""
        with self._entered:
            self.fail.add(ns)

    def to_dict(self) -> dict[str, Any]:
        """Return what the statistics extension states of a model, but its name and version."""
        with self._entered:
            batches = [
                {"batch_size": size} | {name: parts[name].to_dict() for name in PARTS[1:]}
                for size, parts in sorted(self.batches.items())
            ]
            none = Duration().to_dict()
            timed = {"success": self.success.to_dict(), "fail": self.fail.to_dict()}
            timed |= {name: part.to_dict() for name, part in self.parts.items()}
            return {
                "last_inference": self.last_ms,
                "inference_count": self.frames,
                "execution_count": self.success.count,
                "inference_stats": timed | {"cache_hit": none, "cache_miss": none},
                "batch_stats": batches,
                "memory_usage": [],
            }
