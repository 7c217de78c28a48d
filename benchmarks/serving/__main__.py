"""Edgemask's daemon beside other model servers, all at once and asked in turns.

    python -m benchmarks.serving [--model identity] [--seconds 1] [--rounds 3] [--clients 1 4 16] [--only SERVER ...]

Every server runs the same ONNX file in one session of one thread of the same ONNX Runtime. `CPU` is what all of a
server's processes take, without the client; the least of the rounds, as for the quantiles. Turns follow one another, so
that a busy machine hurts all alike.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fast_path import bundle, identity, mobilenet, raw
from benchmarks.serving.clients import FRAME, check_identity, ways
from benchmarks.serving.servers import SERVERS, Running, pss_mb, running

MODELS = {"identity": identity, "mobilenet": mobilenet}
LEAST = 5
ALONE = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1]); print(1, flush=True); sys.stdin.read()"


@dataclass
class Way:
    """One way into one server, and what was measured of it."""

    server: str
    name: str
    open: Callable[[], Any]
    cpu_ns: Callable[[], int]
    cpu_us: list[float] = field(default_factory=list)
    quantiles_us: list[Any] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)

    def turn(self, clients: int, seconds: float) -> None:
        """Ask for so long by so many clients at once."""
        with ExitStack() as opened:
            asks = [opened.enter_context(self.open()) for _ in range(clients)]
            for ask in asks:
                ask()
            before, times, begin_s = self.cpu_ns(), [list[float]() for _ in asks], time.perf_counter()
            threads = [
                threading.Thread(target=_ask, args=(ask, taken, seconds, max(1, LEAST // clients)))
                for ask, taken in zip(asks, times, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took_s, count = time.perf_counter() - begin_s, sum(map(len, times))
            cpu_us = (self.cpu_ns() - before) / 1000 / count
        self.rates.setdefault(clients, []).append(count / took_s)
        if clients == 1:
            self.cpu_us.append(cpu_us)
            self.quantiles_us.append(np.percentile(times[0], [50, 99]))


def _ask(ask: Callable[[], Any], times_us: list[float], seconds: float, least: int) -> None:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(times_us) < least:
        begin = time.perf_counter_ns()
        ask()
        times_us.append((time.perf_counter_ns() - begin) / 1000)


def main() -> None:
    options = _options()
    # Why: the servers are to end with it, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            _compare(name, Path(folder), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the daemon beside other model servers")
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=3, help="cold starts, of which the best counts")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--only", nargs="+", default=list(SERVERS), choices=SERVERS)
    return parser.parse_args()


def _compare(name: str, folder: Path, options: argparse.Namespace) -> None:
    model = MODELS[name]()
    (folder / f"{name}.onnx").write_bytes(model)
    bundle(folder / f"{name}.edgemask", name, model)
    alone_mb = _alone_mb(folder / f"{name}.onnx")
    print(f"\n## {name}: ONNX Runtime alone {alone_mb:.0f} MB PSS", flush=True)
    with ExitStack() as ending:
        servers = {server: _started(server, folder, name, options.starts, ending) for server in options.only}
        alive = {server: found for server, found in servers.items() if found}
        found = [_in_process(model)]
        found += [
            Way(server, way, opened, at.cpu_ns)
            for server, at in alive.items()
            if server != "edgemask, HTTP only"
            for way, opened in ways(server, at, name).items()
        ]
        _measure(found, name, options)
        _show(found, options)
        print("\n| server | cold start s | PSS MB | over ONNX Runtime alone |\n|---|---|---|---|")
        for server, at in alive.items():
            print(
                f"| {server} | {at.cold_start_s:.2f} | {at.pss_mb():.0f} | {at.pss_mb() - alone_mb:.0f} |", flush=True
            )


def _started(server: str, folder: Path, name: str, starts: int, ending: ExitStack) -> Running | None:
    """The server, with the best of its cold starts; None where it does not start."""
    try:
        log, times_s = folder / f"{server}.log", []
        for _ in range(starts - 1):
            with running(SERVERS[server](folder, name), log) as first:
                times_s.append(first.cold_start_s)
        last = ending.enter_context(running(SERVERS[server](folder, name), log))
        last.cold_start_s = min([*times_s, last.cold_start_s])
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"{server}: {error}", file=sys.stderr)
        return None
    return last


def _in_process(model: bytes) -> Way:
    ask = raw(model)
    return Way("ONNX Runtime", "in-process", lambda: _Plain(lambda: ask(FRAME[0])), time.process_time_ns)


class _Plain:
    """What is always open."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask

    def __enter__(self) -> Callable[[], Any]:
        return self._ask

    def __exit__(self, *_: object) -> None:
        pass


def _measure(found: list[Way], name: str, options: argparse.Namespace) -> None:
    for way in list(found):
        try:
            way.turn(1, 0.3)
            if name == "identity":
                with way.open() as ask:
                    check_identity(way.name, ask())
        except (RuntimeError, OSError, StopIteration, ValueError, KeyError) as error:
            print(f"{way.server}, {way.name}: {str(error)[:300]}", file=sys.stderr)
            found.remove(way)
        way.cpu_us.clear()
        way.quantiles_us.clear()
        way.rates.clear()
    for _ in range(options.rounds):
        for clients in options.clients:
            for way in found:
                way.turn(clients, options.seconds)


def _show(found: list[Way], options: argparse.Namespace) -> None:
    counts = [f"{clients} clients /s" for clients in options.clients]
    print(f"\n| server | way | CPU us | p50 us | p99 us | {' | '.join(counts)} |\n|{'---|' * (5 + len(counts))}")
    for way in found:
        rates = " | ".join(f"{max(way.rates[clients]):.0f}" for clients in options.clients)
        p50, p99 = np.min(way.quantiles_us, axis=0)
        print(f"| {way.server} | {way.name} | {min(way.cpu_us):.0f} | {p50:.0f} | {p99:.0f} | {rates} |", flush=True)


def _alone_mb(model: Path) -> float:
    command = [sys.executable, "-c", ALONE, str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        found = pss_mb(process.pid)
        process.stdin.close()
    return found


if __name__ == "__main__":
    main()
