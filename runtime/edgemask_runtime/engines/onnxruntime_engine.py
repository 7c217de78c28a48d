"""ONNX models on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from edgemask_runtime.engines.providers import open_session
from edgemask_runtime.engines.tensors import Array, EngineInfo, TensorInfo, check_feeds
from edgemask_runtime.errors import UserError, one_line

CPU = "cpu"
NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}


class OnnxruntimeEngine:
    """One session; the graph optimisations are on."""

    def __init__(
        self,
        name: str,
        model: bytes | Path,
        *,
        threads: int = 1,
        preserve_all_tensors: bool = False,
        providers: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        if preserve_all_tensors:
            raise UserError(f"{name} keeps no intermediate tensors", hint="add them to the graph's outputs")
        source = model if isinstance(model, bytes) else str(model)
        self._session, provider = open_session(source, session_options(threads), providers or (CPU,), cache)
        self.info = EngineInfo(name, onnxruntime.__version__, provider)
        self.inputs = tuple(map(_describe, self._session.get_inputs()))
        self.outputs = tuple(map(_describe, self._session.get_outputs()))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once."""
        check_feeds(self.inputs, feeds)
        names = [info.name for info in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise UserError(f"{self.info.name}: the model fails on this input: {one_line(error)}") from error

    def tensor(self, name: str) -> Array:
        """Refuse: a session gives only its outputs."""
        raise UserError(f"{self.info.name} keeps no intermediate {name!r}", hint="add it to the graph's outputs")


def session_options(threads: int) -> Any:
    """How sessions run here, wherever they are made."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:
        # Spinning threads triple the median latency on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _describe(node: Any) -> TensorInfo:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorInfo(node.name, NUMPY_NAMES.get(kind, kind), shape)
