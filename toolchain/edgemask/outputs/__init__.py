"""Output steps: from the model's answer to the one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.spec import Misfit, Spec
from edgemask.steps import main_output

V = TypeVar("V")
PROBABILITIES = "probabilities"


def scores_of(outputs: Mapping[str, Spec], name: str) -> Spec:
    """The spec of the output called `name`, or of the last one; Misfit when a sample of it has no axis of classes."""
    scores = outputs[main_output(outputs, name)]
    if len(scores.axes) < 2:
        raise Misfit("needs an axis of classes, gets none", "say with `of` which output has the scores")
    return scores


def finest(outputs: Mapping[str, object], name: str) -> str:
    """The output called `name`, or `probabilities`, or the last one."""
    return PROBABILITIES if not name and PROBABILITIES in outputs else main_output(outputs, name)


def finest_scores(outputs: Mapping[str, Spec], name: str) -> Spec:
    """The spec of the `finest` output; Misfit when it holds classes and no scores."""
    chosen = finest(outputs, name)
    if chosen.startswith("top_"):
        raise Misfit(f"needs a score for every class, gets '{chosen}'", "put it before top-k")
    return scores_of(outputs, chosen)


def probabilities_of(outputs: Mapping[str, Spec], name: str) -> Spec:
    """The spec of the probabilities: those that are called so or named by the user, or made by a softmax step."""
    scores = finest_scores(outputs, name)
    if not name and PROBABILITIES not in outputs and scores.range != (0.0, 1.0):
        raise Misfit(
            f"needs probabilities, gets '{finest(outputs, name)}'", "put softmax before it, or name them with `of`"
        )
    return replace(scores, dtype="float32", range=(0.0, 1.0))


def real_of(ops: Ops[T], outputs: Mapping[str, T], name: str) -> T:
    """The `finest` output as float32."""
    return to_float(ops, outputs[finest(outputs, name)])


def only(outputs: Mapping[str, V], kept: Mapping[str, V]) -> dict[str, V]:
    """`kept` and nothing else that tells scores; a detector's `suspicion` stays."""
    return {name: value for name, value in outputs.items() if name == "suspicion"} | dict(kept)
