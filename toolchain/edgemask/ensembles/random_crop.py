"""The mean answer to random crops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgemask.ops.draws import DRAW_BYTES, draw_below
from edgemask.ops.lookup import pixels_at
from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import round_half_up, to_float
from edgemask.params import param
from edgemask.scores import Held, rows_of
from edgemask.spec import Misfit, Spec
from edgemask.steps import Family, Wrap, given, main_output

CROP_BYTES = 2 * DRAW_BYTES


@dataclass(frozen=True)
class RandomCropEnsemble(Wrap):
    """Add `ensemble_scores`: the mean of the probabilities over random crops, each enlarged to the whole frame.

    The model's own outputs stay those on the whole frame, unmasked; the paper's answer is the mean: read it, or name
    it to what follows (`top-k:of=ensemble_scores`). The model runs 1 + `votes` times a frame.
    """

    kind: ClassVar[str] = "random-crop-ensemble"
    family: ClassVar[Family] = "stochastic"
    paper: ClassVar[str] = "Guo, Rana, Cisse and van der Maaten 2018, arXiv:1711.00117 (30 crops of 90 from 224)"
    claim: ClassVar[str] = "crops move and drop what was perturbed; the mean is steady"
    fate: ClassVar[str] = "broken by EOT over crops (Athalye, Carlini and Wagner 2018, arXiv:1802.00420)"
    votes: int = param(30, doc="how many crops are asked", low=1, high=64)
    crop: float = param(0.4, doc="side of a crop, in sides of the frame", low=0.1, high=1)
    scores: Held = param("logits", doc="what the model's output holds")
    of: str = param("", doc="model output that holds the scores; the last one if left out")

    def spec(self, x: Spec) -> Spec:
        return x.require_pixels()

    def entropy_bytes(self, x: Spec) -> int:
        return self.votes * CROP_BYTES

    def added(self, outputs: Mapping[str, Spec]) -> dict[str, Spec]:
        scores = outputs[main_output(outputs, self.of)]
        if len(scores.axes) != 2:
            raise Misfit("averages rows of scores, gets none", "choose with `of`")
        return {"ensemble_scores": replace(scores, dtype="float32", range=(0.0, 1.0))}

    def build(self, ops: Ops[T], x: T, rest: Callable[[T], dict[str, T]], entropy: T | None) -> dict[str, T]:
        entropy = given(entropy)
        # The whole frame first: a baked file's first copy of the model is the one that is compared step by step.
        outputs = rest(x)
        shares = [ops.slice(entropy, 0, i * CROP_BYTES, (i + 1) * CROP_BYTES) for i in range(self.votes)]
        votes = [rows_of(ops, rest(self._cropped(ops, x, share)), self.of, self.scores) for share in shares]
        return {"ensemble_scores": ops.mul(functools.reduce(ops.add, votes), 1 / self.votes), **outputs}

    def _cropped(self, ops: Ops[T], x: T, entropy: T) -> T:
        height, width, _ = ops.shape(x)
        tall, wide = max(1, round(height * self.crop)), max(1, round(width * self.crop))
        top, left = (ops.slice(entropy, 0, i * DRAW_BYTES, (i + 1) * DRAW_BYTES) for i in range(2))
        rows = ops.reshape(_window(ops, height, tall, top), (tall, 1))
        columns = ops.reshape(_window(ops, width, wide, left), (1, wide))
        return round_half_up(ops, ops.resize(to_float(ops, pixels_at(ops, x, rows, columns)), height, width))


def _window(ops: Ops[T], length: int, size: int, entropy: T) -> T:
    """`size` whole numbers in succession out of `length`, from a random one on."""
    return ops.add(ops.const(np.arange(size, dtype=np.float32)), draw_below(ops, entropy, length - size + 1))
