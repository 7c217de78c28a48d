"""Sinks behind one lazy table: one file, one place where answers go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.tables import chosen

SINKS = {
    "can": "edgemask_runtime.sinks.can:Can",
    "jsonl": "edgemask_runtime.sinks.jsonl:JsonLines",
    "snapshots": "edgemask_runtime.sinks.snapshots:Snapshots",
    "socket": "edgemask_runtime.sinks.socket:SocketLines",
    "mqtt": "edgemask_runtime.sinks.mqtt:Mqtt",
    "text": "edgemask_runtime.sinks.text:TextLines",
}
EXTRAS = frozenset({"can", "mqtt"})
"""Kinds that need a package of the extra of that name."""

ENDED, STOPPING = "the source has ended", "stopping"
"""The last words of a pipeline to its sinks: it came to its end, or it was stopped."""


class Unreachable(UserError):
    """The other side is away, and the sink itself keeps trying to reach it: the next answer may be tried at once."""


@dataclass(frozen=True)
class SinkContext:
    """What a sink may know of where its answers come from: the pipeline's name, and what the bundle states.

    `current` gives the manifest of the bundle that is loaded now; without it that is `manifest` for good.
    """

    pipeline: str
    manifest: Manifest
    current: Callable[[], Manifest] | None = None

    def latest(self) -> Manifest:
        """The manifest of the bundle that is loaded now."""
        return self.current() if self.current else self.manifest


class Sink(Protocol):
    """Takes answers one by one, all from one thread of its own.

    A class of the table has its settings, a frozen dataclass, as `Settings`, and is made with them and a
    `SinkContext`; UserError there ends the start. What may be absent at times (a broker, a bus) is `write`'s to reach:
    UserError from `write` or `invalidate` is a fault that may pass, and newer answers are tried, with backoff; without
    where `write` raises `Unreachable`.
    """

    @property
    def wants_pixels(self) -> bool:
        """Whether `write` gets a copy of the frame; it may change its mind."""

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Deliver one answer; UserError when it cannot be delivered."""

    def invalidate(self, reason: str) -> None:
        """Say that there is no valid answer any more: stall, too old, model down, or one of ENDED and STOPPING.

        It is said once until there is an answer again, and in any case before `close`.
        """

    def close(self) -> None:
        """Deliver what is still held back and let go."""


def sink_settings(kind: str) -> Any:
    """The dataclass of that kind's settings, without `kind`; UserError for an unknown kind."""
    return _chosen(kind).Settings


def open_sink(kind: str, settings: Any, context: SinkContext) -> Sink:
    """Open the sink of that kind with its settings; UserError when it cannot be opened."""
    sink: Sink = _chosen(kind)(settings, context)
    return sink


def _chosen(kind: str) -> Any:
    try:
        return chosen(SINKS, kind, "kind of sink")
    except ModuleNotFoundError as error:
        hint = f"pip install 'edgemask-runtime[{kind}]'" if kind in EXTRAS else None
        raise UserError(f"the sink {kind} needs {error.name}", hint) from error
