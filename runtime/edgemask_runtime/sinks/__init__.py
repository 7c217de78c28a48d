"""Sinks behind one lazy table: where answers go."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from edgemask_runtime.answers import Answer

SINKS = {
    "jsonl": "edgemask_runtime.sinks.jsonl:JsonLines",
    "text": "edgemask_runtime.sinks.text:TextLines",
}


class Sink(Protocol):
    """Takes answers one by one, from one thread."""

    def write(self, answer: Answer) -> None:
        """Deliver one answer; UserError when it cannot be delivered."""

    def close(self) -> None:
        """Deliver what is still held back and let go."""


def open_sink(name: str, target: Path | None) -> Sink:
    """Open the sink of that name on a file, or on standard output when `target` is None."""
    module, _, attribute = SINKS[name].partition(":")
    factory: Any = getattr(importlib.import_module(module), attribute)
    sink: Sink = factory(target)
    return sink
