"""How many requests a model answered and how long each part of that took, as Triton's clients ask for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

NS_PER_MS = 1_000_000
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


class Spent(NamedTuple):
    """The nanoseconds of one request, or of many: waiting, decoding, running the model, encoding."""

    queue: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0


@dataclass
class Batch:
    """The requests of one size: how many, and what all of them took."""

    count: int = 0
    spent: Spent = field(default_factory=Spent)

    def add(self, spent: Spent) -> None:
        """Count one more."""
        self.count += 1
        # Why not a loop: this is done for every frame.
        a, b = self.spent, spent
        self.spent = Spent(a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


@dataclass
class Statistics:
    """The counts of one model since the daemon started; any thread may add to them."""

    last_ms: int = 0
    failures: int = 0
    failed_ns: int = 0
    batches: dict[int, Batch] = field(default_factory=dict)
    _entered: Lock = field(default_factory=Lock)

    def answered(self, frames: int, spent: Spent) -> None:
        """Count a request of so many frames."""
        with self._entered:
            self.last_ms = time.time_ns() // NS_PER_MS
            batch = self.batches.get(frames)
            if batch is None:
                batch = self.batches[frames] = Batch()
            batch.add(spent)

    def failed(self, ns: int) -> None:
        """Count a request that got no answer."""
        with self._entered:
            self.failures += 1
            self.failed_ns += ns

    def to_dict(self) -> dict[str, Any]:
        """Return what the statistics extension states of a model, but its name and version."""
        with self._entered:
            batches = {size: _durations(batch) for size, batch in sorted(self.batches.items())}
            count = sum(batch.count for batch in self.batches.values())
            totals = [sum(batch.spent[part] for batch in self.batches.values()) for part in range(len(PARTS))]
            timed = {"success": _duration(count, sum(totals)), "fail": _duration(self.failures, self.failed_ns)}
            timed |= {name: _duration(count, ns) for name, ns in zip(PARTS, totals, strict=True)}
            return {
                "last_inference": self.last_ms,
                "inference_count": sum(size * batch.count for size, batch in self.batches.items()),
                "execution_count": count,
                "inference_stats": timed | {"cache_hit": _duration(0, 0), "cache_miss": _duration(0, 0)},
                "batch_stats": [{"batch_size": size, **parts} for size, parts in batches.items()],
                "memory_usage": [],
            }


def _durations(batch: Batch) -> dict[str, dict[str, int]]:
    return {name: _duration(batch.count, getattr(batch.spent, name)) for name in PARTS[1:]}


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
