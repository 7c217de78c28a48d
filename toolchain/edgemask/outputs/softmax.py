"""Logits to probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.outputs import scores_of
from edgemask.params import param
from edgemask.spec import Spec
from edgemask.steps import Output, main_output


@dataclass(frozen=True)
class Softmax(Output):
    """Add `probabilities`: the softmax of the scores along their last axis."""

    kind: ClassVar[str] = "softmax"
    of: str = param("", doc="output that holds the scores; the last one if left out")

    def spec(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        scores = scores_of(outputs, self.of)
        return {**outputs, "probabilities": replace(scores, dtype="float32", range=(0.0, 1.0))}

    def build(self, ops: Ops[T], outputs: Mapping[str, T]) -> dict[str, T]:
        scores = to_float(ops, outputs[main_output(outputs, self.of)])
        return {**outputs, "probabilities": ops.softmax(scores)}
