"""The daemon's counts in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from edgemask_runtime import __version__
from edgemask_runtime.api.doors import Door
from edgemask_runtime.api.statistics import PARTS
from edgemask_runtime.telemetry import BOUNDS_MS, Histogram, PipelineTally, SinkTally, State
from edgemask_runtime.web.dashboard import Dashboard, loaded
from edgemask_runtime.web.machine import powers, temperatures

__all__ = ["CONTENT_TYPE_LATEST", "metrics"]

OUTCOMES = ("captured", "answered", "dropped", "expired", "failed", "missed")
STAGES = ("capture", "wait", "read", "infer")
SINK_OUTCOMES = ("delivered", "dropped", "expired", "failed", "invalidated")
NS_PER_S, MS_PER_S = 1e9, 1e3


def metrics(dashboard: Dashboard, doors: list[Door]) -> bytes:
    """All of them; times are in seconds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(dashboard, doors))
    return generate_latest(registry)


class _Counts(Collector):
    """Collects at the moment it is asked; nothing is kept twice."""

    def __init__(self, dashboard: Dashboard, doors: list[Door]) -> None:
        self._dashboard, self._doors = dashboard, doors
        self._telemetry = dashboard.telemetry
        self._pipelines = dict(self._telemetry.pipelines)

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield InfoMetricFamily("edgemask", "The daemon", {"version": __version__})
        yield from self._frames()
        yield from self._times()
        yield from self._sinks()
        yield from self._models()
        yield from self._requests()
        yield from self._events()
        yield from self._machine()

    def _frames(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("edgemask_frames", "Frames by what became of them", labels=["pipeline", "outcome"])
        suspicious = CounterMetricFamily("edgemask_suspicious", "Suspicious answers", labels=["pipeline"])
        state = GaugeMetricFamily("edgemask_pipeline_state", "1 for the state it is in", labels=["pipeline", "state"])
        for name, tally in self._pipelines.items():
            for outcome in OUTCOMES:
                frames.add_metric([name, outcome], getattr(tally, outcome))
            suspicious.add_metric([name], tally.suspicious)
            for word in get_args(State):
                state.add_metric([name, word], tally.state == word)
        yield from (frames, suspicious, state)

    def _times(self) -> Iterator[Metric]:
        age = HistogramMetricFamily("edgemask_frame_age_seconds", "Age when it was answered", labels=["pipeline"])
        stages = HistogramMetricFamily("edgemask_stage_seconds", "Time in each stage", labels=["pipeline", "stage"])
        for name, tally in self._pipelines.items():
            _add(age, [name], tally.age)
            for stage in STAGES:
                _add(stages, [name, stage], getattr(tally, stage))
        yield from (age, stages)

    def _sinks(self) -> Iterator[Metric]:
        labels = ["pipeline", "sink"]
        answers = CounterMetricFamily("edgemask_sink_answers", "Answers by their fate", labels=[*labels, "outcome"])
        age = HistogramMetricFamily("edgemask_sink_age_seconds", "Age when it was delivered", labels=labels)
        took = HistogramMetricFamily("edgemask_sink_deliver_seconds", "Time the sink took", labels=labels)
        for pipeline, name, sink in _sinks_of(self._pipelines):
            for outcome in SINK_OUTCOMES:
                answers.add_metric([pipeline, name, outcome], getattr(sink, outcome))
            _add(age, [pipeline, name], sink.age)
            _add(took, [pipeline, name], sink.deliver)
        yield from (answers, age, took)

    def _models(self) -> Iterator[Metric]:
        info = InfoMetricFamily("edgemask_model", "What is loaded", labels=["model"])
        up = GaugeMetricFamily("edgemask_model_up", "Whether it answers", labels=["model"])
        restarts = CounterMetricFamily("edgemask_model_restarts", "Processes lost", labels=["model"])
        for door in self._doors:
            if about := loaded(door):
                engine = about.engine
                facts = {"digest": about.digest, "engine": engine.name, "provider": engine.provider}
                info.add_metric([door.name], facts | {"engine_version": engine.version})
            up.add_metric([door.name], door.is_ready)
        for name, health in dict(self._telemetry.models).items():
            restarts.add_metric([name], health.restarts)
        yield from (info, up, restarts)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("edgemask_requests", "Clients' requests", labels=["model", "outcome"])
        spent = CounterMetricFamily("edgemask_request_seconds", "Time they took", labels=["model", "part"])
        for door in self._doors:
            counts = door.stats()["inference_stats"]
            requests.add_metric([door.name, "answered"], counts["success"]["count"])
            requests.add_metric([door.name, "failed"], counts["fail"]["count"])
            for part in PARTS:
                spent.add_metric([door.name, part], counts[part]["ns"] / NS_PER_S)
        yield from (requests, spent)

    def _events(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgemask_alarm", "1: do not trust it", value=self._telemetry.alarm is not None)
        events = CounterMetricFamily("edgemask_events", "Events by kind", labels=["kind"])
        for kind, count in dict(self._telemetry.event_counts).items():
            events.add_metric([kind], count)
        yield events

    def _machine(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily("edgemask_memory_bytes", "Proportional set size", labels=["process"])
        celsius = GaugeMetricFamily("edgemask_temperature_celsius", "Thermal zones", labels=["zone"])
        watts = GaugeMetricFamily("edgemask_power_watts", "Power sensors", labels=["rail"])
        sources = ((memory, self._dashboard.memory(self._doors)), (celsius, temperatures()), (watts, powers()))
        for family, values in sources:
            for name, value in values.items():
                family.add_metric([name], value)
            yield family


def _sinks_of(pipelines: dict[str, PipelineTally]) -> Iterator[tuple[str, str, SinkTally]]:
    for pipeline, tally in pipelines.items():
        for name, sink in dict(tally.sinks).items():
            yield pipeline, name, sink


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """A histogram with the counts up to each bound; the last is of all."""
    bounds = [*(str(bound / MS_PER_S) for bound in BOUNDS_MS), "+Inf"]
    below = accumulate(list(histogram.counts))
    family.add_metric(labels, list(zip(bounds, below, strict=True)), histogram.sum_ms / MS_PER_S)
