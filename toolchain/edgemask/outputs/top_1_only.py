"""The best class and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from edgemask.ops.protocol import Ops, T
from edgemask.outputs import finest_scores, only, real_of
from edgemask.params import param
from edgemask.spec import Axis, Spec
from edgemask.steps import Output


@dataclass(frozen=True)
class Top1Only(Output):
    """Give the best class alone, as `top_indices`; every score and the model's own outputs are dropped.

    It does not stop attacks and copies that ask for labels only: they need more queries.
    """

    kind: ClassVar[str] = "top-1-only"
    paper: ClassVar[str] = "Tramer et al. 2016, USENIX Security, arXiv:1609.02943"
    claim: ClassVar[str] = "without confidence values, equations for the model's weights cannot be set up"
    fate: ClassVar[str] = (
        "labels alone train a copy (Tramer et al. 2016; Orekondy et al. 2019, arXiv:1812.02766) "
        "and lead to adversarial examples (Brendel et al. 2018, arXiv:1712.04248)"
    )
    cuts: ClassVar[bool] = True
    replaces: ClassVar[bool] = True
    of: str = param("", doc="output that holds the scores; probabilities, else the last one, if left out")

    def spec(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        scores = finest_scores(outputs, self.of)
        _ = scores.sample
        best = replace(scores, dtype="int32", axes=(*scores.axes[:-1], Axis("rank", 1)), range=None)
        return only(outputs, {"top_indices": best})

    def build(self, ops: Ops[T], outputs: Mapping[str, T]) -> dict[str, T]:
        _, best = ops.top_k(real_of(ops, outputs, self.of), 1)
        return only(outputs, {"top_indices": best})
