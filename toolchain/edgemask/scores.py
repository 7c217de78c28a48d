"""Scores as the steps around a model read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.steps import main_output

Held = Literal["logits", "probabilities"]


def rows_of(ops: Ops[T], outputs: Mapping[str, T], name: str, held: Held) -> T:
    """The probabilities in the output called `name`, or in the last one, which holds them or logits."""
    scores = to_float(ops, outputs[main_output(outputs, name)])
    return ops.softmax(scores) if held == "logits" else scores
