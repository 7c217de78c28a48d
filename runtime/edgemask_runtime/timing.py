"""How long a bundle's model takes on this machine, frame by frame, and its steps where the engine tells of them."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemask_runtime.engines import Array, open_engine
from edgemask_runtime.engines.tensors import EngineInfo
from edgemask_runtime.entropy import draw_seed, expand
from edgemask_runtime.manifest import Manifest, payload_digest
from edgemask_runtime.probe import frames, machine

WARM_UP = 10
PROFILER, UNTOLD = "profiler", "none"
STEP = re.compile(r"edgemask/(\d+\.[a-z0-9-]+)/")
MODEL, GLUE, BETWEEN = "model", "glue", "engine"


def time_model(
    manifest: Manifest, model: bytes, runs: int, threads: int = 1, *, cache: Path | None = None, watch: bool = True
) -> dict[str, Any]:
    """Medians and 99th percentiles in ms of `runs` inferences, as plain data; UserError where none is possible.

    Each run has fresh entropy, as in the daemon; a key that the model takes is drawn, for it changes no time.
    With `watch` the steps are told, where the engine can.
    """
    opened = open_engine(manifest.engine, model, threads=threads, providers=manifest.providers, cache=cache)
    feeds = Feeds(manifest)
    total, drawing = _timed(opened.run, feeds, runs)
    steps, how, profiled = _steps(model, opened.info, feeds, runs, threads) if watch else ([], UNTOLD, None)
    return {
        "schema": 1,
        "model": manifest.name,
        "target": manifest.target,
        "digest": payload_digest(manifest),
        "engine": str(opened.info),
        "provider": opened.info.provider,
        "threads": threads,
        "machine": about_machine(),
        "runs": runs,
        "latency": summary(total),
        "entropy": summary(drawing) if manifest.entropy else None,
        "steps": steps,
        "how": how,
        "profiled": profiled,
    }


class Feeds:
    """What a run takes: the probe's noise as the frame, entropy that is drawn anew, a key."""

    def __init__(self, manifest: Manifest) -> None:
        self._entropy, self._frame = manifest.entropy, next(frames(manifest))
        self._fixed: dict[str, Array] = {manifest.frame.name: self._frame}
        if manifest.key and not manifest.key.published:
            key = np.frombuffer(os.urandom(manifest.key.bytes), np.uint8)
            self._fixed[manifest.key.name] = np.tile(key, (len(self._frame), 1))

    def fresh(self) -> dict[str, Array]:
        """The inputs of one run."""
        if not self._entropy:
            return self._fixed
        rows = [expand(draw_seed(), self._entropy.bytes, self._entropy.generator) for _ in self._frame]
        return {**self._fixed, self._entropy.name: np.stack(rows)}


def summary(times_ms: Iterable[float]) -> dict[str, float]:
    """Median and 99th percentile, in ms."""
    values = np.fromiter(times_ms, float)
    return {"median_ms": round(float(np.median(values)), 4), "p99_ms": round(float(np.percentile(values, 99)), 4)}


def as_text(told: Mapping[str, Any]) -> str:
    """The times for reading."""
    where = told["machine"]["board"] or told["machine"]["processor"]
    head = f"{told['model']} on {told['engine']} ({told['provider']}), {where}, n = {told['runs']}"
    watched = [("all, in those runs", told["profiled"])] if told["profiled"] else []
    rows = [("all", told["latency"]), *watched, *((step["step"], step) for step in told["steps"])]
    lines = [f"{name:24} median {row['median_ms']:9.3f} ms   p99 {row['p99_ms']:9.3f} ms" for name, row in rows]
    return "\n".join([head, *lines, *([] if told["steps"] else [f"steps: {told['how']}"])])


def about_machine() -> dict[str, Any]:
    """On what the figures were measured, and how busy it was."""
    model = Path("/proc/device-tree/model")
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "board": model.read_text(errors="replace").rstrip("\0") if model.exists() else None,
        "processor": names[0] if names else machine().split()[0],
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _timed(run: Any, feeds: Feeds, runs: int) -> tuple[list[float], list[float]]:
    total, drawing = [], []
    for number in range(WARM_UP + runs):
        begun_s = time.perf_counter()
        given = feeds.fresh()
        drawn_s = time.perf_counter()
        run(given)
        if number >= WARM_UP:
            total.append(1e3 * (time.perf_counter() - begun_s))
            drawing.append(1e3 * (drawn_s - begun_s))
    return total, drawing


def _steps(
    model: bytes, info: EngineInfo, feeds: Feeds, runs: int, threads: int
) -> tuple[list[dict[str, Any]], str, dict[str, float] | None]:
    """Each step's times, how they were found, and the whole as it was then: being watched costs something."""
    if info.name != "onnxruntime":
        return [], f"{UNTOLD}: {info.name} has no profiler in Python", None
    if info.provider != "cpu":
        return [], f"{UNTOLD}: provider {info.provider} does not run nodes one after the other", None
    rows = list(_profiled(model, feeds, runs, threads))[WARM_UP:]
    steps = [{"step": step, **summary(row.get(step, 0.0) for row in rows)} for step in _ordered(rows)]
    return steps, PROFILER, summary(sum(row.values()) for row in rows)


def _ordered(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The steps in the order in which they begin to run, and last what is of no step."""
    found = dict.fromkeys(step for row in rows for step in row)
    return [*(step for step in found if step not in (GLUE, BETWEEN)), *(s for s in (GLUE, BETWEEN) if s in found)]


def _profiled(model: bytes, feeds: Feeds, runs: int, threads: int) -> Iterator[dict[str, float]]:
    """Each run's milliseconds by step, as ONNX Runtime's profiler saw them."""
    from edgemask_runtime.engines.onnxruntime_engine import session_options
    from edgemask_runtime.engines.providers import open_session

    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session, _ = open_session(model, options, ("cpu",))
        for _ in range(WARM_UP + runs):
            session.run(None, feeds.fresh())
        events = json.loads(Path(session.end_profiling()).read_text())
    yield from _by_run(events)


def _by_run(events: list[dict[str, Any]]) -> Iterator[dict[str, float]]:
    nodes = sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: event["ts"])
    whole = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])
    position = 0
    for run in whole:
        row: dict[str, float] = {}
        while position < len(nodes) and nodes[position]["ts"] <= run["ts"] + run["dur"]:
            step = _step_of(nodes[position]["name"])
            row[step] = row.get(step, 0.0) + nodes[position]["dur"] / 1e3
            position += 1
        row[BETWEEN] = max(0.0, run["dur"] / 1e3 - sum(row.values()))
        yield row


def _step_of(node: str) -> str:
    found = STEP.match(node)
    return found[1] if found else GLUE if node.startswith("edgemask/graph/") else MODEL
