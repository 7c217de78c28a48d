"""Signs that a gradient is masked, not absent (Pintor et al. 2022, arXiv:2106.09947; Carlini et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgemask.auditing.attacks import Target, planar, view
from edgemask.auditing.defence import Backward
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import FULL
from edgemask.auditing.twin import gradient
from edgemask.auditing.verdict import BLIND
from edgemask_runtime.formats import Pixels

FRAMES, DIRECTIONS = 16, 16
STEP = 4 / FULL
"""How far a finite difference reaches: a few grey levels, so that it sees over the steps of a rounding."""
GAP = 0.05
_WITHOUT_OWN_GRADIENT = {
    "fgsm": "a single step",
    "square": "asking for scores",
    "transfer": "the unmasked model's gradient",
    "substitute": "a copy trained on the file's answers",
    "uniform-noise": "random noise",
}


@dataclass(frozen=True)
class Indicator:
    """One sign: its value, the limit, whether it speaks of masking, and what that means in plain words."""

    name: str
    value: float
    limit: float
    flagged: bool
    meaning: str


def of_gradient(target: Target, frames: Pixels, labels: Labels) -> list[Indicator]:
    """What the gradient of the graph as it is looks like."""
    x, y = planar(frames[:FRAMES]).requires_grad_(), torch.from_numpy(labels[:FRAMES])
    slopes = _slopes(target, x, y, "exact")
    finite = torch.isfinite(slopes).all(1)
    margin = _margin(view(target.defence, "exact", 1, 0)(x.detach()))
    ways: list[Backward] = ["identity", "surrogate"]
    adaptive = min(_still(_slopes(target, x, y, way)) for way in ways)
    return [
        _above("zero gradient", _still(slopes), 0.5, "An attacker who follows this gradient stands still."),
        _above(BLIND, adaptive, 0.5, "Even who passes every mask stands still: the model itself hides its gradient."),
        _above("gradient is no number", float((~finite).double().mean()), 0.0, "The gradient breaks off."),
        _below(
            "agrees with finite differences",
            _agreement(target, x.detach(), y, slopes.detach()),
            0.5,
            "The gradient does not point where the loss really grows: it was hidden, not removed.",
        ),
        _above("saturated scores", margin, 30.0, "Scores lie so far apart that the loss hardly changes."),
    ]


def of_randomness(target: Target, frames: Pixels) -> Indicator:
    """How often two draws of the entropy answer differently."""
    first, second = (target.shipped.labels(frames, draw) for draw in (1, 2))
    share = float(np.mean(first != second))
    return _above("answers differ between draws", share, 0.0, "One frame gets several answers: attacks must average.")


def of_rows(left: Mapping[str, float], unbounded: Mapping[str, float], chance: float) -> list[Indicator]:
    """What the attacks' figures say of each other: what each left, and what gradients leave without any bound."""
    found = [
        _above(f"{who} attack left without a bound", share, chance + 0.1, text)
        for who, share in unbounded.items()
        for text in ["Even with no bound it fails: the attack is weak, and its figure says nothing of the model."]
    ]
    for name, attack in _WITHOUT_OWN_GRADIENT.items():
        if name in left:
            text = f"{attack.capitalize()} does better than the gradient: the gradient is hidden, and misleads."
            found.append(_above(f"{attack} beats the naive attack", left["pgd"] - left[name], GAP, text))
            text = f"{attack.capitalize()} does better than the adaptive attack: that attack is not yet strong enough."
            found.append(_above(f"{attack} beats the adaptive attack", left["adaptive"] - left[name], GAP, text))
    gap, text = left["pgd"] - left["adaptive"], "The usual figure misleads by this much: who adapts gets further."
    return [*found, _above("gap between naive and adaptive", gap, GAP, text)]


def _slopes(target: Target, x: Tensor, y: Tensor, backward: Backward) -> Tensor:
    """Of the loss by each frame's values, [N, values]."""
    model = view(target.defence, backward, 1, 0)
    return gradient(torch.nn.functional.cross_entropy(model(x), y, reduction="sum"), x).flatten(1)


def _still(slopes: Tensor) -> float:
    """The share of frames whose gradient is zero throughout."""
    return float((slopes.abs().amax(1) == 0).double().mean())


def _agreement(target: Target, x: Tensor, y: Tensor, slopes: Tensor) -> float:
    """The mean cosine, over frames, of directional slopes by gradient and by finite differences."""
    source = torch.Generator().manual_seed(0)
    by_gradient, by_difference = [], []
    for _ in range(DIRECTIONS):
        way = torch.randn(x.shape, generator=source).sign()
        by_gradient.append((slopes * way.flatten(1)).sum(1))
        # Why a view each time: it begins its draws again, and with other ones a difference would be the draws'.
        ends = [_loss(view(target.defence, "exact", 1, 0), (x + side * STEP * way).clamp(0, 1), y) for side in (1, -1)]
        by_difference.append((ends[0] - ends[1]) / (2 * STEP))
    pair = torch.stack(by_gradient, 1), torch.stack(by_difference, 1)
    cosine = torch.nn.functional.cosine_similarity(*(value.double().nan_to_num() for value in pair), dim=1)
    return float(cosine.mean())


def _loss(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(x), y, reduction="none")


def _margin(scores: Tensor) -> float:
    best = torch.topk(scores.detach(), 2, dim=1).values
    return float((best[:, 0] - best[:, 1]).median())


def _above(name: str, value: float, limit: float, meaning: str) -> Indicator:
    return Indicator(name, value, limit, not value <= limit, meaning)


def _below(name: str, value: float, limit: float, meaning: str) -> Indicator:
    return Indicator(name, value, limit, not value >= limit, meaning)
