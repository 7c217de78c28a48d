"""The local fast path beside the engine alone and beside what a socket and a copy cost, one after another in turn.

    python -m benchmarks.fast_path [SECONDS]

Times are of the client's wall clock, CPU is that of both processes. Contenders take turns of some 20 ms: a busy machine
hurts all alike. `best` is the least of the turns' medians.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.manifests import MODEL, manifest_of
from benchmarks.mobilenet import mobilenet_v2
from edgemask_runtime.bundle import FrameInput, OutputRecord, file_records, write_bundle
from edgemask_runtime.ring.client import LocalModel
from edgemask_runtime.supervisor import ModelOptions, Supervisor

SHAPE = (224, 224, 3)
BYTES = int(np.prod(SHAPE))
TURN_S = 0.02


@dataclass
class Contender:
    """A way to have a frame answered, and the processes that it keeps busy."""

    ask: Callable[[np.ndarray], Any]
    processes: tuple[int, ...] = ()
    medians_us: list[float] = field(default_factory=list)
    times_us: list[float] = field(default_factory=list)
    cpu_us: float = 0.0

    def turn(self, frame: np.ndarray) -> None:
        before, times, end_s = self._cpu_ns(), list[float](), time.monotonic() + TURN_S
        while time.monotonic() < end_s:
            begin = time.perf_counter_ns()
            self.ask(frame)
            times.append((time.perf_counter_ns() - begin) / 1000)
        self.cpu_us += (self._cpu_ns() - before) / 1000
        self.medians_us.append(float(np.median(times)))
        self.times_us += times

    def row(self) -> str:
        p50, p99 = np.percentile(self.times_us, [50, 99])
        return f"{min(self.medians_us):9.1f} {p50:9.1f} {p99:9.1f} {self.cpu_us / len(self.times_us):9.1f}"

    def _cpu_ns(self) -> int:
        return time.process_time_ns() + sum(cpu_ns(process) for process in self.processes)


def cpu_ns(process: int) -> int:
    """Processor time of all threads of another process that waits now: the kernel adds up when it switches."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat"))


def identity() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *SHAPE]) for name in ("frame", "out")]
    return _serialised([helper.make_node("Identity", ["frame"], ["out"])], ends[:1], ends[1:], [])


def mobilenet() -> bytes:
    """MobileNetV2 behind a cast and a transpose."""
    model = onnx.load_from_string(mobilenet_v2())
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", *SHAPE])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 1000])
    entry = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["image"], perm=[0, 3, 1, 2]),
    ]
    last = helper.make_node("Identity", ["logits"], ["out"])
    return _serialised([*entry, *model.graph.node, last], [frame], [out], list(model.graph.initializer))


def _serialised(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "bench", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def bundle(path: Path, name: str, model: bytes) -> Path:
    kind = "float32" if name == "mobilenet" else "uint8"
    shape = (None, 1000) if name == "mobilenet" else (None, *SHAPE)
    frame = FrameInput(224, 224, "rgb", name="frame", dtype="uint8", batch=None)
    output = OutputRecord("out", kind, shape, "raw")
    manifest = manifest_of(name, frame, output, files=file_records({MODEL: model}))
    write_bundle(path, manifest, {MODEL: model}, {})
    return path


def raw(model: bytes) -> Callable[[np.ndarray], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda frame: session.run(["out"], {"frame": frame[np.newaxis]})


@contextmanager
def child(body: Callable[[socket.socket], None]) -> Iterator[tuple[socket.socket, int]]:
    """A process that does one thing at the other end of a stream socket."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        ours.close()
        try:
            body(theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours, process
    finally:
        ours.close()
        os.waitpid(process, 0)


def echo(theirs: socket.socket) -> None:
    """Send back as many bytes as came."""
    buffer = memoryview(bytearray(BYTES))
    while _filled(theirs, buffer):
        theirs.sendall(buffer)


def echoing(ours: socket.socket) -> Callable[[np.ndarray], Any]:
    buffer = memoryview(bytearray(BYTES))

    def ask(frame: np.ndarray) -> Any:
        ours.sendall(frame.data)
        _filled(ours, buffer)
        return buffer

    return ask


def _filled(end: socket.socket, buffer: memoryview) -> bool:
    got = 0
    while got < BYTES:
        read = end.recv_into(buffer[got:])
        if not read:
            return False
        got += read
    return True


def copying(shared: mmap.mmap) -> Callable[[socket.socket], None]:
    """Copy the frame into private memory, out of it to its answer's place, and say so with one byte."""

    def body(theirs: socket.socket) -> None:
        given, answer = (np.ndarray(BYTES, np.uint8, shared, at) for at in (0, BYTES))
        private = np.empty_like(given)
        while theirs.recv(1):
            private[:] = given
            answer[:] = private
            theirs.send(b"x")

    return body


def copied(ours: socket.socket, shared: mmap.mmap) -> Callable[[np.ndarray], Any]:
    given, answer = (np.ndarray(BYTES, np.uint8, shared, at) for at in (0, BYTES))

    def ask(frame: np.ndarray) -> Any:
        given[:] = frame.ravel()
        ours.send(b"x")
        ours.recv(1)
        return answer.copy()

    return ask


def compare(name: str, model: bytes, seconds: float, folder: Path, running: ExitStack) -> None:
    shared = mmap.mmap(-1, 2 * BYTES)
    # Why first: a process that has threads should not fork.
    echo_end, echo_process = running.enter_context(child(echo))
    copy_end, copy_process = running.enter_context(child(copying(shared)))
    options = ModelOptions(name, bundle(folder / name, name, model), socket=folder / f"{name}.sock", deadline_s=60)
    remote = running.enter_context(Supervisor([options])).models[name]
    local = running.enter_context(LocalModel.connect(folder / f"{name}.sock"))
    worker = (remote.process_id,) if remote.process_id else ()
    contenders = {
        "engine alone, in-process": Contender(raw(model)),
        "ring, a local program": Contender(local.infer, worker),
        "ring, the daemon": Contender(lambda frame: remote.predict(frame[np.newaxis]), worker),
        "socket, 150 kB there and back": Contender(echoing(echo_end), (echo_process,)),
        "shared memory, copies and a byte": Contender(copied(copy_end, shared), (copy_process,)),
    }
    frame = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for contender in contenders.values():
            contender.turn(frame)
    print(f"\n{name}{'':23} {'best us':>9} {'p50 us':>9} {'p99 us':>9} {'CPU us':>9}")
    for title, contender in contenders.items():
        print(f"{title:32} {contender.row()}")
    over = [
        ring - alone
        for ring, alone in zip(
            contenders["ring, a local program"].medians_us,
            contenders["engine alone, in-process"].medians_us,
            strict=True,
        )
    ]
    print(f"the ring over the engine alone, turn by turn: median {np.median(over):.1f} us, least {min(over):.1f} us")


def main(seconds: float = 20.0) -> None:
    for name, model in (("identity", identity()), ("mobilenet", mobilenet())):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
            compare(name, model, seconds, Path(folder), running)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
