"""A tiny TFLite classifier, written straight into a flatbuffer: frame (+ entropy) -> softmax(pixels @ weights)."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT, UINT8, INT32 = schema.TensorType.FLOAT32, schema.TensorType.UINT8, schema.TensorType.INT32
OPTIONS = schema.BuiltinOptions
OPERATORS = ("CAST", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX", "ADD")


def classifier(weights: np.ndarray[Any, Any], shape: tuple[int, int, int], *, noisy: bool, signed: bool) -> bytes:
    """Serialise the classifier of `weights` [classes, pixels]; `signed` gives it a signature of other names."""
    return _Writer(weights, shape, noisy=noisy, signed=signed).serialise()


class _Writer:
    def __init__(self, weights: np.ndarray[Any, Any], shape: tuple[int, int, int], *, noisy: bool, signed: bool):
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.signed = signed
        self._build(weights.astype(np.float32), shape, noisy)

    def _build(self, weights: np.ndarray[Any, Any], shape: tuple[int, int, int], noisy: bool) -> None:
        pixels = int(np.prod(shape))
        frame = self._tensor("serving_frame", (1, *shape), UINT8)
        self.inputs = {"frame": frame}
        flat = self._flat(self._cast(frame, "frame_f32", (1, *shape)), pixels)
        if noisy:
            self.inputs["entropy"] = self._tensor("serving_entropy", (1, pixels), UINT8)
            noise = self._cast(self.inputs["entropy"], "entropy_f32", (1, pixels))
            flat = self._operator("ADD", [flat, noise], self._tensor("noisy", (1, pixels), FLOAT), schema.AddOptionsT())
        self.outputs = {"probabilities": self._dense(flat, weights)}

    def _cast(self, source: int, name: str, shape: tuple[int, ...]) -> int:
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = UINT8, FLOAT
        return self._operator("CAST", [source], self._tensor(name, shape, FLOAT), options)

    def _flat(self, source: int, pixels: int) -> int:
        target = self._tensor("flat_shape", (2,), INT32, np.array([1, pixels], np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = [1, pixels]
        return self._operator("RESHAPE", [source, target], self._tensor("flat", (1, pixels), FLOAT), options)

    def _dense(self, source: int, weights: np.ndarray[Any, Any]) -> int:
        classes = weights.shape[0]
        constant = self._tensor("weights", weights.shape, FLOAT, weights)
        logits = self._tensor("logits", (1, classes), FLOAT)
        self._operator("FULLY_CONNECTED", [source, constant, -1], logits, schema.FullyConnectedOptionsT())
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._operator("SOFTMAX", [logits], self._tensor("softmax", (1, classes), FLOAT), options)

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, data: np.ndarray[Any, Any] | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _operator(self, name: str, inputs: list[int], output: int, options: Any) -> int:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = OPERATORS.index(name), inputs, [output]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(OPTIONS, type(options).__name__[:-1])
        self.operators.append(operator)
        return output

    def serialise(self) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, b"main"
        graph.inputs, graph.outputs = list(self.inputs.values()), list(self.outputs.values())
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = [_code(name) for name in OPERATORS]
        model.signatureDefs = [self._signature()] if self.signed else None
        builder = flatbuffers.Builder(1 << 14)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _signature(self) -> Any:
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_entry(name, index) for name, index in self.inputs.items()]
        signature.outputs = [_entry(name, index) for name, index in self.outputs.items()]
        return signature


def _code(name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    return code


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
