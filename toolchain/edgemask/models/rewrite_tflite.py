"""Rewriting of TFLite models: steps in place of the model's own operators, fused activations included."""

from __future__ import annotations

from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from edgemask.chain import Rewritten
from edgemask.models.flatbuffer import operator_name
from edgemask.models.rewriting import no_shape, require_match, wrong_dtype
from edgemask.ops.tflite import DTYPES, TfliteOps, TfliteValue, text

_FUSED: dict[int, str] = {
    value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int) and value
}


def rewrite(model: schema.ModelT, rewrites: Sequence[Rewritten]) -> None:
    """Put each step in place of the operators and fused activations that it matches, in the main subgraph."""
    for rewritten in rewrites:
        _Rewriting(model, rewritten).run()


class _Rewriting:
    """One step's way through the operators."""

    def __init__(self, model: schema.ModelT, rewritten: Rewritten) -> None:
        self._model = model
        self._main = model.subgraphs[0]
        self._rewritten = rewritten
        self._ops = TfliteOps(model)
        self._sites = 0
        self._instead: dict[int, int] = {}

    def run(self) -> None:
        """Rewrite all operators; who read a tensor then reads what stands in its place."""
        ops, main = self._ops, self._main
        seen = [self._activation(operator) or self._op(operator) for operator in main.operators]
        for operator in main.operators:
            operator.inputs = [self._instead.get(int(index), int(index)) for index in operator.inputs]
            self._visit(operator)
        require_match(self._rewritten, self._sites, seen)
        main.operators = ops.operators
        main.outputs = [self._instead.get(int(index), int(index)) for index in main.outputs]
        for entry in (entry for signature in self._model.signatureDefs for entry in signature.outputs or ()):
            entry.tensorIndex = self._instead.get(entry.tensorIndex, entry.tensorIndex)

    def _visit(self, operator: schema.OperatorT) -> None:
        if self._matches(self._op(operator), operator):
            self._build(int(operator.inputs[0]), int(operator.outputs[0]))
            return
        self._ops.operators.append(operator)
        fused = self._activation(operator)
        if fused and self._matches(fused, operator):
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
            self._build(int(operator.outputs[0]), int(operator.outputs[0]))

    def _build(self, taken: int, replaced: int) -> None:
        with self._ops.scope(f"{self._rewritten.name}/{self._sites}"):
            self._instead[replaced] = self._rewritten.step.build(self._ops, self._value(taken)).index
        self._sites += 1

    def _value(self, index: int) -> TfliteValue:
        tensor = self._main.tensors[index]
        dtype, name = DTYPES.get(tensor.type), text(tensor.name)
        if dtype != "float32":
            raise wrong_dtype(self._rewritten, name, dtype or f"type {tensor.type}")
        if len(tensor.shape) < 2:
            raise no_shape(self._rewritten, name)
        return TfliteValue(index, dtype, tuple(int(size) for size in tensor.shape[1:]))

    def _matches(self, op: str, operator: schema.OperatorT) -> bool:
        outputs = [text(self._main.tensors[index].name) for index in operator.outputs]
        return len(outputs) == 1 and self._rewritten.step.matches(op, outputs[0])

    def _op(self, operator: schema.OperatorT) -> str:
        return operator_name(self._model.operatorCodes[operator.opcodeIndex])

    def _activation(self, operator: schema.OperatorT) -> str | None:
        return _FUSED.get(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
