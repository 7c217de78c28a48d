"""Output steps: from the model's answer to the one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping

from edgemask.spec import Misfit, Spec
from edgemask.steps import main_output


def scores_of(outputs: Mapping[str, Spec], name: str) -> Spec:
    """The spec of the output called `name`, or of the last one; Misfit when a sample of it has no axis of classes."""
    scores = outputs[main_output(outputs, name)]
    if len(scores.axes) < 2:
        raise Misfit("needs an axis of classes, gets none", "say with `of` which output has the scores")
    return scores
