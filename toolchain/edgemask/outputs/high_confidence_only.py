"""No answer where the model is not sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgemask.ops.protocol import Ops, T
from edgemask.outputs import PROBABILITIES, only, probabilities_of, real_of
from edgemask.params import param
from edgemask.spec import Axis, Spec
from edgemask.steps import Output


@dataclass(frozen=True)
class HighConfidenceOnly(Output):
    """Set probabilities below `threshold` to 0; where none is left, the best class is -1.

    Gives `probabilities`, `top_scores` and `top_indices` of the best class, and drops every other output. It hides the
    model's behaviour near its boundaries. It does not stop who asks with frames that the model is sure of, adversarial
    ones included, and labels still tell where the threshold lies.
    """

    kind: ClassVar[str] = "high-confidence-only"
    paper: ClassVar[str] = "Tramer et al. 2016, USENIX Security, arXiv:1609.02943 (threshold as HighConfidence in ART)"
    claim: ClassVar[str] = "what is not told of unlikely classes cannot be used to set up equations for the weights"
    fate: ClassVar[str] = "labels alone train a copy (Tramer et al. 2016; Orekondy et al. 2019, arXiv:1812.02766)"
    replaces: ClassVar[bool] = True
    threshold: float = param(0.25, doc="least probability that is told", low=0.01, high=1.0)
    of: str = param("", doc="output that holds the probabilities; the one called so, if left out")

    def spec(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        told = probabilities_of(outputs, self.of)
        _ = told.sample
        best = replace(told, axes=(*told.axes[:-1], Axis("rank", 1)))
        return only(
            outputs,
            {PROBABILITIES: told, "top_scores": best, "top_indices": replace(best, dtype="int32", range=None)},
        )

    def build(self, ops: Ops[T], outputs: Mapping[str, T]) -> dict[str, T]:
        scores = real_of(ops, outputs, self.of)
        told = self._unless_low(ops, scores, scores, np.float32(0))
        best, index = ops.top_k(told, 1)
        index = self._unless_low(ops, best, index, np.int32(-1))
        return only(outputs, {PROBABILITIES: told, "top_scores": best, "top_indices": index})

    def _unless_low(self, ops: Ops[T], scores: T, x: T, otherwise: np.generic) -> T:
        """`x` where the score reaches the threshold."""
        ones = (1,) * len(ops.shape(scores))
        low = ops.greater(ops.const(np.full(ones, self.threshold, np.float32)), scores)
        return ops.where(low, ops.const(np.full(ones, otherwise)), x)
