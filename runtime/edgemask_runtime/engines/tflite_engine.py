"""TFLite models on LiteRT or on tflite-runtime, whose interpreters are one class under two names."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemask_runtime.engines.chatter import without_info
from edgemask_runtime.engines.tensors import Array, EngineInfo, TensorInfo, check_feeds
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import read_bytes

PACKAGES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}
CPU, XNNPACK = "cpu", "xnnpack"
IDENTIFIER = b"TFL3"
MAX_MODEL_BYTES = 1 << 31

Details = dict[str, Any]


class TfliteEngine:
    """One interpreter; inputs and outputs have the signature's names if the file has one, else the tensors' names."""

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
        if providers:
            raise UserError(f"{name} has no providers to choose from", "leave them out")
        version: str = importlib.import_module(PACKAGES[name]).__version__
        self._interpreter = _open_interpreter(name, model, threads, preserve_all_tensors)
        self.info = EngineInfo(name, version, _provider(self._interpreter))
        self._preserves = preserve_all_tensors
        self._inputs, self._outputs = _named_details(self._interpreter)
        self.inputs = tuple(_describe(name, details) for name, details in self._inputs.items())
        self.outputs = tuple(_describe(name, details) for name, details in self._outputs.items())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; the outputs are copies."""
        check_feeds(self.inputs, feeds)
        try:
            self._feed(feeds)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.info.name}: the model fails on this input: {one_line(error)}") from error
        return {name: self._interpreter.get_tensor(details["index"]) for name, details in self._outputs.items()}

    def tensor(self, name: str) -> Array:
        """Return the tensor of that name as the last run left it; needs `preserve_all_tensors`."""
        if not self._preserves:
            raise UserError(f"intermediate {name!r} was not kept", hint="open the engine with preserve_all_tensors")
        for details in self._interpreter.get_tensor_details():
            if details["name"] == name:
                found: Array = self._interpreter.get_tensor(details["index"])
                return found
        raise UserError(f"the model has no tensor {name!r}")

    def _feed(self, feeds: Mapping[str, Array]) -> None:
        resized = {name: details for name, details in self._inputs.items() if _shape(details) != feeds[name].shape}
        for name, details in resized.items():
            self._interpreter.resize_tensor_input(details["index"], feeds[name].shape)
            details["shape"] = feeds[name].shape
        if resized:
            self._interpreter.allocate_tensors()
        for name, details in self._inputs.items():
            self._interpreter.set_tensor(details["index"], feeds[name])


def _open_interpreter(name: str, model: bytes | Path, threads: int, preserve_all_tensors: bool) -> Any:
    module = importlib.import_module(f"{PACKAGES[name]}.interpreter")
    content = model if isinstance(model, bytes) else read_bytes(model, limit_bytes=MAX_MODEL_BYTES)
    _check_identifier(name, content)
    try:
        with without_info(), warnings.catch_warnings():
            # LiteRT warns that preserve_all_tensors takes memory, which whoever asks for it knows.
            warnings.simplefilter("ignore", UserWarning)
            interpreter = module.Interpreter(
                model_content=content, num_threads=threads, experimental_preserve_all_tensors=preserve_all_tensors
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name} does not load the model: {one_line(error)}") from error
    return interpreter


def _provider(interpreter: Any) -> str:
    """XNNPACK where it took a part of the graph over; the interpreter says so nowhere else."""
    operators = interpreter._get_ops_details()
    return XNNPACK if any(operator["op_name"] == "DELEGATE" for operator in operators) else CPU


def _check_identifier(name: str, content: bytes) -> None:
    # Why before the interpreter sees it: tflite-runtime does not verify a flatbuffer and walks into anything.
    if content[4:8] != IDENTIFIER:
        raise UserError(f"{name} does not load the model: it is no TFLite file")


def _named_details(interpreter: Any) -> tuple[dict[str, Details], dict[str, Details]]:
    inputs: list[Details] = interpreter.get_input_details()
    outputs: list[Details] = interpreter.get_output_details()
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named_inputs = _renamed(inputs, runner.get_input_details())
        named_outputs = _renamed(outputs, runner.get_output_details())
        if named_inputs and named_outputs:
            return named_inputs, named_outputs
    return {details["name"]: details for details in inputs}, {details["name"]: details for details in outputs}


def _renamed(tensors: list[Details], signature: dict[str, Details]) -> dict[str, Details] | None:
    """Give the main graph's tensors, in their order, the signature's names; None if it is another graph's."""
    names = {details["index"]: name for name, details in signature.items()}
    if names.keys() != {details["index"] for details in tensors}:
        return None
    return {names[details["index"]]: details for details in tensors}


def _shape(details: Details) -> tuple[int, ...]:
    return tuple(int(size) for size in details["shape"])


def _describe(name: str, details: Details) -> TensorInfo:
    shape = tuple(None if size < 0 else int(size) for size in details["shape_signature"])
    scale, zero_point = details["quantization"]
    quantisation = (float(scale), int(zero_point)) if scale else None
    return TensorInfo(name, np.dtype(details["dtype"]).name, shape, quantisation)
