"""A served model whose answer is its frame: whoever gets another frame's answer sees it at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.bundle import OutputRecord, write_bundle
from edgemask_runtime.engines import EngineInfo
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import UserError
from edgemask_runtime.ring.access import listen
from edgemask_runtime.ring.server import RingServer

from .tiny import SHAPE, manifest_of


class Echo:
    """`echo` is the frame and `found` the places of its pixels over 200, as many as there are."""

    def __init__(self, batch: int | None = None) -> None:
        records = (
            OutputRecord("echo", "uint8", (batch, *SHAPE), "raw"),
            OutputRecord("found", "int64", (None,), "raw"),
        )
        manifest = manifest_of(b"", "onnxruntime", noisy=False)
        frame = dataclasses.replace(manifest.frame, batch=batch)
        self.manifest = dataclasses.replace(manifest, outputs=records, frame=frame)
        self.digest, self.engine = "0" * 64, EngineInfo("echo", "1", "cpu")
        self.about = About(self.manifest, self.digest, self.engine)

    def predict(self, frames: Any) -> Outputs:
        if (frames == 66).all():
            raise UserError("this frame fails", "show another one")
        if (frames == 67).all():
            raise NoEntropy("the random source repeats itself")
        return Outputs({"echo": frames.copy(), "found": np.flatnonzero(frames > 200)}, self.about)


def echo_bundle(path: Path, version: str = "1", *, model: bytes = b"", **changes: Any) -> Path:
    """A bundle on ONNX Runtime whose answer is its frame; `version` is for another digest."""
    content = model or _identity()
    manifest = dataclasses.replace(
        manifest_of(content, "onnxruntime", noisy=False),
        outputs=(OutputRecord("echo", "uint8", (None, *SHAPE), "raw"),),
        tools={"edgemask": version},
    )
    write_bundle(path, dataclasses.replace(manifest, **changes), {manifest.model.file: content}, {})
    return path


def _identity() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *SHAPE]) for name in ("frame", "echo")]
    graph = helper.make_graph([helper.make_node("Identity", ["frame"], ["echo"])], "echo", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18)]
    serialised: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return serialised


@contextmanager
def serving(path: Path, served: Any, group: str | None = None) -> Iterator[RingServer]:
    """Serve at `path` from a thread of this process, and go in order."""
    server, stopping = RingServer(served), Event()
    with listen(path, group) as listener:
        server.listen(listener)

        def run() -> None:
            while not stopping.is_set():
                server.turn(0.05)

        thread = Thread(target=run)
        thread.start()
        try:
            yield server
        finally:
            stopping.set()
            thread.join()
            server.close()
