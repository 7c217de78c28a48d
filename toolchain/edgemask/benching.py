"""Latency of a baked file, a bundle or a release on this machine, or of what a device runs, step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.artefact import read_artefact
from edgemask.bundle import manifest_of
from edgemask.device.destination import Destination
from edgemask.device.home import Home
from edgemask.device.upload import Tell
from edgemask.device.verbs import by_hand
from edgemask.errors import UserError
from edgemask.models.onnx_prefixes import prefixes as onnx_prefixes
from edgemask.models.tflite_prefixes import prefixes as tflite_prefixes
from edgemask.proof import prove
from edgemask.recipe import RuntimeEntry
from edgemask.target import find_target
from edgemask_runtime.bundle import SUFFIX as BUNDLE
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.engines import Array
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.release import SUFFIX as RELEASE
from edgemask_runtime.release import Release
from edgemask_runtime.timing import WARM_UP, Feeds, summary, time_model

PREFIXES = "prefixes"
ON_THE_CPU = ("cpu", "xnnpack")

Timer = Callable[[Mapping[str, Array]], float]


def bench_file(path: Path, runs: int = 200, threads: int = 1, tell: Tell = lambda *_: None) -> list[dict[str, Any]]:
    """Time each model in a file on this machine; UserError where its engine is not here."""
    models, found = list(_models(path)), []
    for number, (manifest, model) in enumerate(models):
        tell(f"time {path.name}, {runs} runs", number, len(models))
        found.append(_timed(manifest, model, runs, threads))
    return found


def bench_device(
    host: str,
    runs: int = 200,
    threads: int = 1,
    config: Path | None = None,
    home: Home | None = None,
    tell: Tell = lambda *_: None,
) -> list[dict[str, Any]]:
    """Time each model that a device runs, there, while its service stands still."""
    there = home or Home()

    def commands(installed: dict[str, Any]) -> Iterator[list[str]]:
        for name, entry in installed["models"].items():
            tell(f"time {name}, {runs} runs", 0, 1)
            file = f"{there.root}/current/{entry['file']}"
            how = ["--runs", str(runs), "--threads", str(threads), "--json"]
            yield [there.of("edgemaskd"), "bench", file, *how]

    said: list[str] = []
    tell("connect", 0, 1)
    code = by_hand(Destination.parse(host), commands, said.append, config, there)
    told = [json.loads(line) for line in said if line.startswith('{"schema"')]
    if code or not told:
        last = next(
            (line for line in said if line.startswith("error: ")), said[-1] if said else f"it ended with {code}"
        )
        raise UserError(f"{host}: {last.removeprefix('error: ')}", f"edgemask status {host}")
    return [_with_budget(one) for one in told]


def _models(path: Path) -> Iterator[tuple[Manifest, bytes]]:
    if path.suffix == RELEASE:
        release = Release.open(path)
        for entry in release.manifest.models.values():
            bundle = Bundle.open(path / entry.file, release.read(entry.file))
            yield bundle.manifest, bundle.read(bundle.manifest.model.file)
    elif path.suffix == BUNDLE:
        bundle = Bundle.open(path)
        yield bundle.manifest, bundle.read(bundle.manifest.model.file)
    else:
        baked = read_artefact(path)
        yield manifest_of(baked, prove(baked.model.graph()), find_target("host"), RuntimeEntry()), baked.model.data


def _timed(manifest: Manifest, model: bytes, runs: int, threads: int) -> dict[str, Any]:
    told = time_model(manifest, model, runs, threads, watch=False)
    if told["provider"] in ON_THE_CPU:
        told |= _by_prefixes(manifest, model, runs, threads)
    return _with_budget(told)


def _with_budget(told: dict[str, Any]) -> dict[str, Any]:
    """The target's goal beside it; none where this Edgemask does not know the target."""
    try:
        budget: int | None = find_target(told["target"]).budget.latency_ms
    except UserError:
        budget = None
    return {**told, "budget_ms": budget}


def _by_prefixes(manifest: Manifest, model: bytes, runs: int, threads: int) -> dict[str, Any]:
    """Each step as what the graph takes up to its end less what it takes up to its start, run after run in turn.

    No 99th percentile: that of a difference of two runs says more of the machine than of the step.
    """
    cut, timer = (onnx_prefixes, _session) if manifest.model.format == "onnx" else (tflite_prefixes, _interpreter)
    parts = list(cut(model))
    timers = [timer(content, threads) for _, content in parts]
    feeds = Feeds(manifest)
    rounds = [[run(given) for run in timers] for given in (feeds.fresh() for _ in range(WARM_UP + runs))]
    times = np.array(rounds)[WARM_UP:]
    apart = np.diff(times, axis=1, prepend=0.0)
    found: dict[str, float] = {}
    for (step, _), taken in zip(parts, np.median(apart, axis=0), strict=True):
        found[step] = found.get(step, 0.0) + float(taken)
    steps = [{"step": step, "median_ms": round(taken, 4), "p99_ms": None} for step, taken in found.items()]
    return {"steps": steps, "how": PREFIXES, "profiled": summary(times[:, -1])}


def _session(content: bytes, threads: int) -> Timer:
    """A part of an ONNX file that tells how long it takes to run once, in ms, without its outputs being copied."""
    from edgemask_runtime.engines.onnxruntime_engine import session_options
    from edgemask_runtime.engines.providers import open_session

    session, _ = open_session(content, session_options(threads), ("cpu",))
    binding = session.io_binding()
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def run(given: Mapping[str, Array]) -> float:
        for info in session.get_inputs():
            binding.bind_cpu_input(info.name, given[info.name])
        begun_s = time.perf_counter()
        session.run_with_iobinding(binding)
        return 1e3 * (time.perf_counter() - begun_s)

    return run


def _interpreter(content: bytes, threads: int) -> Timer:
    """The same of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    from edgemask_runtime.engines.chatter import without_info

    with without_info():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()

    def run(given: Mapping[str, Array]) -> float:
        for details in interpreter.get_input_details():
            interpreter.set_tensor(details["index"], given[_plain(details["name"], given)])
        begun_s = time.perf_counter()
        interpreter.invoke()
        return 1e3 * (time.perf_counter() - begun_s)

    return run


def _plain(tensor: str, given: Mapping[str, Array]) -> str:
    """The input that a tensor is, which a converter may have named `serving_default_NAME:0`."""
    return next(name for name in given if name == tensor or tensor.endswith(f"_{name}:0"))
