"""How old a frame is when its answer comes, and what it costs: `edgemaskd` beside loops as people write them.

    python -m benchmarks.pipeline [--seconds 10] [--rounds 3] [--json]

A network camera (Motion JPEG over HTTP, 640 x 480) shows each frame's number; a MobileNetV2 reads it back, so that the
age is of the frame that was answered, whatever the way says of itself: from the camera's picture to the answer's line.
All ways run the same model on ONNX Runtime with one thread, one way at a time, in turn. First the camera gives half as
many frames as the engine could answer, then three times as many. `cv2` and `av` are needed for the loops.

Then a folder of images through the daemon beside the engine alone, and what a frame's entropy costs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from benchmarks.pipeline_camera import NetworkCamera, pictures
from benchmarks.pipeline_loops import LOOPS, session_of
from benchmarks.pipeline_model import SIDE, numbered_bundle
from edgemask.listing import columns
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.engines import open_engine
from edgemask_runtime.entropy import draw_seed, expand
from edgemask_runtime.frames import NS_PER_MS

CALM, OVERLOAD = 0.5, 3.0
WARM_S, STOP_S = 2.0, 30.0
NEEDS = {"opencv": "cv2", "frigate": "cv2", "pyav": "av"}
TICKS = os.sysconf("SC_CLK_TCK")
ENTROPY_BYTES = 640 * 480 * 3
COLUMNS = {"answers_s": 1, "p50_ms": 0, "p99_ms": 0, "cpu_ms": 1, "cpu_share": 2}
SETTINGS = """
schema = 1
[[models]]
name = "numbered"
bundle = "{bundle}"
[[pipelines]]
name = "camera"
model = "numbered"
[pipelines.source]
{source}
[[pipelines.sinks]]
kind = "jsonl"
"""


@dataclass
class Seen:
    """The ages in ms of the frames that were answered, in their order, and the CPU time meanwhile."""

    ages_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        """What is told of it."""
        p50, p99 = np.percentile(self.ages_ms, [50, 99]) if self.ages_ms else (np.nan, np.nan)
        answers = len(self.ages_ms)
        return {
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "answers_s": answers / self.seconds,
            "cpu_ms": 1000 * self.cpu_s / max(answers, 1),
            "cpu_share": self.cpu_s / self.seconds,
        }


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command, ended by the end of its input or SIGTERM, and what it started with it."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()
            process.terminate()
            process.wait(STOP_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ages(command: list[str], camera: NetworkCamera, seconds: float) -> Seen:
    """Run a way for so long after its first answer and a moment to settle."""
    seen, begun, over = Seen(), Event(), Event()
    with running(command) as process:

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                now_ns = time.monotonic_ns()
                begun.set()
                if measuring and not over.is_set():
                    seen.ages_ms.append((now_ns - camera.captured_ns[number_of(line)]) / NS_PER_MS)

        measuring: list[bool] = []
        reader = Thread(target=read, daemon=True)
        reader.start()
        if not begun.wait(60):
            raise SystemExit(f"{' '.join(command)}: no answer within a minute")
        time.sleep(WARM_S)
        spent_s, begin_s = cpu_s(process.pid), time.monotonic()
        measuring.append(True)
        time.sleep(seconds)
        over.set()
        seen.cpu_s, seen.seconds = cpu_s(process.pid) - spent_s, time.monotonic() - begin_s
    return seen


def number_of(line: str) -> int:
    """The number in a line: the loops' is the number, the daemon's has it among the outputs."""
    return int(line) if not line.startswith("{") else int(json.loads(line)["outputs"]["number"])


def cpu_s(process_id: int) -> float:
    """The processor time of a process and all that it started, in s."""
    total = 0.0
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
        for children in Path(f"/proc/{process_id}/task").glob("*/children"):
            total += sum(cpu_s(int(child)) for child in children.read_text().split())
    except OSError:
        pass
    return total


def daemon(folder: Path, bundle: Path, source: str) -> list[str]:
    """The daemon's command on settings with that source."""
    path = folder / f"{abs(hash(source))}.toml"
    path.write_text(SETTINGS.format(bundle=bundle, source=source))
    return [sys.executable, "-m", "edgemask_runtime.daemon", "run", str(path)]


def ways(folder: Path, bundles: dict[str, Path], url: str) -> dict[str, list[str]]:
    """The commands by name; loops whose library is missing are left out."""
    source = f'kind = "stream"\nurl = "{url}"'
    found = {f"edgemaskd, {colour}": daemon(folder, bundle, source) for colour, bundle in bundles.items()}
    for name, module in NEEDS.items():
        if importlib.util.find_spec(module):
            model = str(folder / "rgb" / "model.onnx")
            found[f"{name} loop"] = [sys.executable, "-m", "benchmarks.pipeline_loops", name, url, model]
    assert set(NEEDS) == set(LOOPS)
    return found


def inferences(model: str, bundles: dict[str, Path]) -> dict[str, Callable[[], Any]]:
    """One inference of the model alone, and of each bundle's graph."""
    session, image = session_of(model), np.zeros((1, 3, SIDE, SIDE), np.float32)
    found: dict[str, Callable[[], Any]] = {"the model": lambda: session.run(None, {"image": image})}
    for colour, path in bundles.items():
        bundle = Bundle.open(path)
        engine = open_engine("onnxruntime", bundle.read(bundle.manifest.model.file))
        frame = np.zeros((1, *bundle.manifest.frame.shape), np.uint8)
        found[f"the graph, {colour}"] = partial(engine.run, {"frame": frame})
    return found


def median_ms(run: Callable[[], Any]) -> float:
    """The median of some runs."""
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin))
    return float(np.median(times))


def measure(folder: Path, bundles: dict[str, Path], seconds: float, rounds: int) -> dict[str, Any]:
    """Every way under a calm camera and one that gives too much, in turn."""
    model, files = str(folder / "rgb" / "model.onnx"), pictures()
    runs = inferences(model, bundles)
    found: dict[str, Any] = {"inference_ms": {name: [median_ms(run)] for name, run in runs.items()}, "loads": {}}
    for load, share in (("calm", CALM), ("overload", OVERLOAD)):
        fps = share * 1000 / found["inference_ms"]["the model"][0]
        collected: dict[str, Seen] = {}
        with NetworkCamera(files, fps) as camera:
            for _ in range(rounds):
                for name, command in ways(folder, bundles, camera.url).items():
                    seen, whole = ages(command, camera, seconds), collected.setdefault(name, Seen())
                    whole.ages_ms += seen.ages_ms
                    whole.cpu_s, whole.seconds = whole.cpu_s + seen.cpu_s, whole.seconds + seen.seconds
                for name, run in runs.items():
                    found["inference_ms"][name].append(median_ms(run))
        found["loads"][load] = {"fps": fps, "ways": {name: seen.row() for name, seen in collected.items()}}
    return found


def throughput(folder: Path, bundle: Path, rounds: int, frames: int = 150) -> dict[str, float]:
    """Answers a second, from a folder of images and of the engine alone on the same graph: best rounds, in turn."""
    photos = folder / "photos"
    photos.mkdir()
    for index, picture in enumerate(pictures()[:32]):
        (photos / f"{index:02}.jpg").write_bytes(picture)
    opened = Bundle.open(bundle)
    engine = open_engine("onnxruntime", opened.read(opened.manifest.model.file))
    pixels = np.zeros((1, *opened.manifest.frame.shape), np.uint8)
    best = {"folder": 0.0, "engine alone": 0.0}
    for _ in range(rounds):
        best["folder"] = max(best["folder"], _from_folder(folder, bundle, photos, frames))
        begin = time.perf_counter()
        for _ in range(frames):
            engine.run({"frame": pixels})
        best["engine alone"] = max(best["engine alone"], frames / (time.perf_counter() - begin))
    return best


def _from_folder(folder: Path, bundle: Path, photos: Path, frames: int) -> float:
    command = daemon(folder, bundle, f'kind = "folder"\npath = "{photos}"\nfps = 0\nloop = true')
    stamps: list[float] = []
    with running(command) as process:
        assert process.stdout
        for _, _ in zip(range(frames), process.stdout, strict=False):
            stamps.append(time.perf_counter())
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def entropy_us(rounds: int = 20) -> dict[str, float]:
    """What the entropy of a frame of 640 x 480 x 3 costs: drawn and expanded, or all from the operating system."""

    def timed(run: Any) -> float:
        begin = time.process_time_ns()
        run()
        return (time.process_time_ns() - begin) / 1000

    kinds = {
        "seed alone": draw_seed,
        "shake128": lambda: expand(draw_seed(), ENTROPY_BYTES, "shake128"),
        "philox4x64": lambda: expand(draw_seed(), ENTROPY_BYTES, "philox4x64"),
        "all of it from the system": lambda: os.urandom(ENTROPY_BYTES),
    }
    return {name: min(timed(run) for _ in range(rounds)) for name, run in kinds.items()}


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    for name, times in found["inference_ms"].items():
        print(f"one inference of {name}: {min(times):.1f} to {max(times):.1f} ms during the run")
    head = ("way", "answers/s", "age p50 ms", "p99 ms", "CPU ms an answer", "cores")
    for load, told in found["loads"].items():
        print(f"\n{load}: the camera gives {told['fps']:.0f} frames a second")
        rows = [
            (name, *(format(way[key], f".{digits}f") for key, digits in COLUMNS.items()))
            for name, way in told["ways"].items()
        ]
        print(columns(head, rows))
    through = found["throughput"]
    share = through["folder"] / through["engine alone"]
    print(f"\nfolder of images: {through['folder']:.1f} answers/s, {share:.2f} of the engine alone on the same graph")
    print("entropy of a frame, us: " + ", ".join(f"{name} {us:.0f}" for name, us in found["entropy_us"].items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each way, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundles = {}
        for colour in ("i420", "rgb"):
            (folder / colour).mkdir()
            bundles[colour] = numbered_bundle(folder / colour, colour)
        found = measure(folder, bundles, options.seconds, options.rounds)
        found["throughput"] = throughput(folder, bundles["rgb"], options.rounds)
    found["entropy_us"] = entropy_us()
    print(json.dumps(found, indent=2)) if options.json else show(found)
    missing = sorted({module for module in NEEDS.values() if not importlib.util.find_spec(module)})
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)


if __name__ == "__main__":
    main()
