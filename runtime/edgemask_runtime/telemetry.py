"""What happened, as plain numbers: counters and histograms of every pipeline and sink, and the latest events."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

from edgemask_runtime.frames import wall_clock

BOUNDS_MS = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0),
    *(150.0, 200.0, 300.0, 500.0, 700.0, 1000.0, 2000.0, 5000.0, 10_000.0, 60_000.0),
)
KEPT_EVENTS = 256
EventKind = Literal[
    "suspicious", "stalled", "lost", "back", "model-down", "model-up", "sink-failed", "sink-back", "alarm", "reloaded",
    "reload-refused", "ended",
]  # fmt: skip
State = Literal["starting", "running", "stalled", "lost", "ended"]

log = logging.getLogger("edgemaskd")


class Histogram:
    """Counts of times in ms up to each of BOUNDS_MS, and of longer ones; one thread observes, any may read."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.count = 0
        self.sum_ms = 0.0
        self.largest_ms = 0.0

    def observe(self, ms: float) -> None:
        """Count one time."""
        self.counts[bisect_left(BOUNDS_MS, ms)] += 1
        self.count += 1
        self.sum_ms += ms
        self.largest_ms = max(self.largest_ms, ms)

    def quantile(self, share: float) -> float:
        """Estimate the time that `share` of the observed ones do not exceed, linear within its bucket; 0 of none."""
        rank, below = share * self.count, 0
        for count, low, high in zip(self.counts, (0.0, *BOUNDS_MS), (*BOUNDS_MS, self.largest_ms), strict=True):
            if count and below + count >= rank:
                return min(low + (high - low) * (rank - below) / count, self.largest_ms)
            below += count
        return 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return counts by bound, their sum and number, median and p99."""
        return {
            "bounds_ms": list(BOUNDS_MS),
            "counts": list(self.counts),
            "count": self.count,
            "sum_ms": self.sum_ms,
            "p50_ms": self.quantile(0.5),
            "p99_ms": self.quantile(0.99),
        }

    def __str__(self) -> str:
        return f"median {self.quantile(0.5):.2f} ms, p99 {self.quantile(0.99):.2f} ms"


@dataclass
class SinkTally:
    """One sink: answers delivered, replaced by newer ones, too old, failed; how often it was told of no answer.

    `age` is of the frame when its answer was delivered, `deliver` how long the sink took.
    """

    delivered: int = 0
    dropped: int = 0
    expired: int = 0
    failed: int = 0
    invalidated: int = 0
    age: Histogram = field(default_factory=Histogram)
    deliver: Histogram = field(default_factory=Histogram)

    def summary(self) -> str:
        """Return the counts that are not 0."""
        counts = {name: getattr(self, name) for name in ("delivered", "dropped", "expired", "failed")}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing delivered"


@dataclass
class PipelineTally:
    """One pipeline: captured = answered + dropped + expired + failed once it stands still.

    `missed` counts frames that the source had and did not give us, where it tells; they were never captured.
    `down` counts those of the failed that met a model that was being restarted. Times: `capture` from the driver's time
    to ours, `wait` in the mailbox, `read` to get the pixels, `infer`, `age` of the frame when it was answered.
    """

    state: State = "starting"
    model_down: bool = False
    captured: int = 0
    missed: int = 0
    answered: int = 0
    dropped: int = 0
    expired: int = 0
    failed: int = 0
    down: int = 0
    suspicious: int = 0
    stalled: int = 0
    lost: int = 0
    opened: int = 0
    capture: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)
    read: Histogram = field(default_factory=Histogram)
    infer: Histogram = field(default_factory=Histogram)
    age: Histogram = field(default_factory=Histogram)
    sinks: dict[str, SinkTally] = field(default_factory=dict)

    def summary(self) -> str:
        """Return what became of the frames, latency and age, on one line."""
        counts = f"{self.captured} frames captured, {self.answered} answered, {self.dropped} dropped"
        counts += f", {self.expired} expired, {self.failed} failed"
        told = [counts, *([f"latency {self.infer}", f"age {self.age}"] if self.answered else [])]
        return "; ".join([*told, *(f"{name}: {sink.summary()}" for name, sink in self.sinks.items())])


@dataclass(frozen=True)
class Event:
    """Something that an operator should know: when, what, which part, in words."""

    at: str
    kind: EventKind
    where: str
    text: str


class ModelHealth(Protocol):
    """A model that runs: how many of its processes were lost, why it does not answer now, if so, and its alarm."""

    alarm: str | None

    @property
    def restarts(self) -> int:
        """Processes that were lost."""

    @property
    def trouble(self) -> str | None:
        """Why it does not answer; None when it does."""


class Telemetry:
    """All tallies by the pipeline's name, models by theirs, and the latest events.

    `alarm` is why the device must not be trusted, whoever met it: a pipeline, or a client of a model.
    """

    def __init__(self) -> None:
        self.models: Mapping[str, ModelHealth] = {}
        self.pipelines: dict[str, PipelineTally] = {}
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.event_counts: Counter[str] = Counter()
        self._alarm: str | None = None

    @property
    def alarm(self) -> str | None:
        """The first alarm; None as long as there was none."""
        return self._alarm or next((model.alarm for model in self.models.values() if model.alarm), None)

    def pipeline(self, name: str) -> PipelineTally:
        """The tally of that pipeline, made when it is first asked for."""
        return self.pipelines.setdefault(name, PipelineTally())

    def tell(self, kind: EventKind, where: str, text: str, *, level: int = logging.WARNING) -> None:
        """Keep an event and log it."""
        self.events.append(Event(wall_clock(), kind, where, text))
        self.event_counts[kind] += 1
        log.log(level, "%s: %s", where, text)

    def raise_alarm(self, where: str, text: str) -> None:
        """Keep an event that makes the device unhealthy for as long as the daemon runs."""
        self._alarm = self._alarm or f"{where}: {text}"
        self.tell("alarm", where, text, level=logging.CRITICAL)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "alarm": self.alarm,
            "models": {name: {"restarts": it.restarts, "trouble": it.trouble} for name, it in self.models.items()},
            "pipelines": {name: _plain(tally) for name, tally in list(self.pipelines.items())},
            "events": [asdict(event) for event in list(self.events)],
            "event_counts": dict(self.event_counts),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in list(value.items())}
    if isinstance(value, SinkTally | PipelineTally):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value
