"""Scores on another scale."""

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
class Temperature(Output):
    """Divide the scores by `temperature`, before a softmax step; the output keeps its name.

    Below 1 the softmax saturates, so that its gradient vanishes in float32: the default stands for a network distilled
    at temperature 100 and run at 1. Above 1 the probabilities flatten. The best class stays. It does not stop attacks
    that read the logits or scale them back.
    """

    kind: ClassVar[str] = "temperature"
    paper: ClassVar[str] = (
        "Papernot et al. 2016, arXiv:1511.04508 (there by distillation: the scale alone, not the training)"
    )
    claim: ClassVar[str] = "gradients shrink so far that attacks find no direction"
    fate: ClassVar[str] = (
        "logits, scaled back, break it as an undefended model (Carlini and Wagner 2016, arXiv:1607.04311)"
    )
    replaces: ClassVar[bool] = True
    temperature: float = param(0.01, doc="what the scores are divided by", low=0.001, high=1000.0)
    of: str = param("", doc="output that holds the scores; the last one if left out")

    def spec(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        scaled = replace(scores_of(outputs, self.of), dtype="float32", range=None)
        return {**outputs, main_output(outputs, self.of): scaled}

    def build(self, ops: Ops[T], outputs: Mapping[str, T]) -> dict[str, T]:
        name = main_output(outputs, self.of)
        return {**outputs, name: ops.div(to_float(ops, outputs[name]), self.temperature)}
