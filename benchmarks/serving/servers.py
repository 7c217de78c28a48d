"""How each server is installed and started, and what it says when it is ready."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.fast_path import cpu_ns
from edgemask.conversion.folders import user_cache

PEERS = Path(__file__).parent / "peers"
START_S = 120
ENVIRONMENTS = {
    "triton": ("nvidia-pytriton==0.7.0", "onnxruntime==1.32.0"),
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.32.0"),
    "litserve": ("litserve==0.2.19", "onnxruntime==1.32.0"),
    "bentoml": ("bentoml==1.4.39", "onnxruntime==1.32.0"),
}


@dataclass(frozen=True)
class Started:
    """How a server is started: its command, what is in its environment, and where it says that it is ready."""

    command: list[str]
    ready: str
    http: int
    grpc: int | None = None
    ring: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A server that runs, in a session of its own."""

    started: Started
    process: subprocess.Popen[bytes]
    cold_start_s: float

    @property
    def processes(self) -> list[int]:
        """Its own number and those of its children and theirs."""
        parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        found = [self.process.pid]
        for number in found:
            found += [child for child, parent in parents.items() if parent == number]
        return found

    def cpu_ns(self) -> int:
        """Processor time of all of them so far."""
        return sum(map(cpu_ns, self.processes))

    def pss_mb(self) -> float:
        """Their memory; what several share counts once in all."""
        return sum(map(pss_mb, self.processes))


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def pss_mb(process: int) -> float:
    """Proportional set size."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def python_of(name: str) -> str:
    """The interpreter of a peer's environment, made in the cache folder when it is not there."""
    folder = user_cache("serving") / name
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(ENVIRONMENTS[name])} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]], check=True)
    return str(python)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def edgemask(folder: Path, name: str) -> Started:
    http, grpc = free_port(), free_port()
    ring = folder / f"{name}.sock"
    settings = folder / f"{name}.toml"
    settings.write_text(
        f'schema = 1\n[http]\nlisten = "127.0.0.1:{http}"\n[grpc]\nlisten = "127.0.0.1:{grpc}"\n'
        f'[[models]]\nname = "{name}"\nbundle = "{folder / name}.edgemask"\nsocket = "{ring}"\n'
    )
    command = [sys.executable, "-m", "edgemask_runtime.daemon", "run", str(settings)]
    return Started(command, "/v2/health/ready", http, grpc, ring)


def edgemask_http(folder: Path, name: str) -> Started:
    """Without gRPC and the local socket: what the rest costs in memory and at the start."""
    http = free_port()
    command = [sys.executable, "-m", "edgemask_runtime.daemon", "run", str(folder / f"{name}.edgemask")]
    return Started([*command, "--listen", f"127.0.0.1:{http}"], "/v2/health/ready", http)


def triton(folder: Path, name: str) -> Started:
    python, (http, grpc) = Path(python_of("triton")), (free_port(), free_port())
    command = [str(python), str(PEERS / "triton_server.py"), str(folder / f"{name}.onnx"), name, str(http), str(grpc)]
    # Why the library's path: its backend would load the system's Python under this one's modules.
    library = {"LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")}
    found = {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    return Started(command, f"/v2/models/{name}/ready", http, grpc, environment=library | found)


def mlserver(folder: Path, name: str) -> Started:
    http, grpc = free_port(), free_port()
    place = folder / "mlserver" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "mlserver_model.py").write_bytes((PEERS / "mlserver_model.py").read_bytes())
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": free_port()}
    (place / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0, "debug": False}))
    model = {"name": name, "implementation": "mlserver_model.Model"}
    model_settings = model | {"parameters": {"uri": str(folder / f"{name}.onnx")}}
    (place / "model-settings.json").write_text(json.dumps(model_settings))
    command = [str(Path(python_of("mlserver")).with_name("mlserver")), "start", str(place)]
    return Started(command, f"/v2/models/{name}/ready", http, grpc)


def litserve(folder: Path, name: str) -> Started:
    http = free_port()
    command = [python_of("litserve"), str(PEERS / "litserve_server.py"), str(folder / f"{name}.onnx"), str(http)]
    return Started(command, "/health", http)


def bentoml(folder: Path, name: str) -> Started:
    http = free_port()
    python = python_of("bentoml")
    command = [python, "-m", "bentoml", "serve", "bentoml_service:Model", "--host", "127.0.0.1", "--port", str(http)]
    settings = {"BENCHMARK_MODEL": str(folder / f"{name}.onnx"), "BENTOML_DO_NOT_TRACK": "1"}
    return Started([*command, "--working-dir", str(PEERS)], "/readyz", http, environment=settings)


SERVERS: dict[str, Callable[[Path, str], Started]] = {
    "edgemask": edgemask,
    "edgemask, HTTP only": edgemask_http,
    "Triton": triton,
    "MLServer": mlserver,
    "LitServe": litserve,
    "BentoML": bentoml,
}


@contextmanager
def running(started: Started, log: Path) -> Iterator[Running]:
    """Start it, wait until it is ready, and end it and all of its children."""
    # Why without: a user's Python keeps compiled modules, and the second start of several has them.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin_s = time.perf_counter()
    with log.open("wb") as said:
        process = subprocess.Popen(
            started.command,
            stdout=said,
            stderr=said,
            env={**inherited, **started.environment},
            start_new_session=True,
        )
    try:
        _wait(started, process, log)
        yield Running(started, process, time.perf_counter() - begin_s)
    finally:
        _end(process, Running(started, process, 0.0).processes)


def _wait(started: Started, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", started.http, timeout=5)
        try:
            connection.request("GET", started.ready)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise RuntimeError(f"{started.command[0]} does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes], left: list[int]) -> None:
    """With all its children, for some leave theirs behind, or take no SIGTERM."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for number in left:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()
