"""The best few classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.outputs import scores_of
from edgemask.params import param
from edgemask.spec import Axis, Misfit, Spec
from edgemask.steps import Output, main_output


@dataclass(frozen=True)
class TopK(Output):
    """Add `top_scores` and `top_indices`: the k largest scores, largest first, and the classes they belong to."""

    kind: ClassVar[str] = "top-k"
    k: int = param(5, doc="how many classes", low=1, high=1000)
    of: str = param("", doc="output that holds the scores; the last one if left out")

    def spec(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        scores = scores_of(outputs, self.of)
        if scores.sample[-1] < self.k:
            raise Misfit(f"asks for {self.k} classes, gets {scores}", f"set k to {scores.sample[-1]} or less")
        best = replace(scores, dtype="float32", axes=(*scores.axes[:-1], Axis("rank", self.k)))
        return {**outputs, "top_scores": best, "top_indices": replace(best, dtype="int32", range=None)}

    def build(self, ops: Ops[T], outputs: Mapping[str, T]) -> dict[str, T]:
        scores, indices = ops.top_k(to_float(ops, outputs[main_output(outputs, self.of)]), self.k)
        return {**outputs, "top_scores": scores, "top_indices": indices}
