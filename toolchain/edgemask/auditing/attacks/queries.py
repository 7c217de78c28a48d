"""Attacks that need no gradient: they ask the file itself, on its own engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from edgemask.auditing.attacks import NORMS, Attack, Knowledge, Target, planar, pushed
from edgemask.auditing.defence import as_logits
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import FULL
from edgemask_runtime.formats import Pixels


@dataclass(frozen=True)
class Square(Attack):
    """Random squares, kept where the score of the right class falls."""

    name: ClassVar[str] = "square"
    knowledge: ClassVar[Knowledge] = "scores"
    paper: ClassVar[str] = "Andriushchenko et al. 2020, arXiv:1912.00049"
    queries: int = 500

    @property
    def title(self) -> str:
        return f"square-{self.queries}"

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        from pyautoattack.square import SquareAttack

        attack = SquareAttack(
            _asked(target, seed, _log_scores),
            norm=NORMS[target.threat.norm],
            n_queries=self.queries,
            eps=target.threat.eps,
            seed=seed,
            device="cpu",
            resc_schedule=True,
        )
        return attack.perturb(planar(frames), torch.from_numpy(labels))


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """A walk along the decision boundary that sees labels alone."""

    name: ClassVar[str] = "hop-skip-jump"
    knowledge: ClassVar[Knowledge] = "decisions"
    paper: ClassVar[str] = "Chen, Jordan and Wainwright 2020, arXiv:1904.02144"
    steps: int = 10

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        from foolbox import PyTorchModel
        from foolbox.attacks import HopSkipJumpAttack, LinearSearchBlendedUniformNoiseAttack

        model = PyTorchModel(_Module(_asked(target, seed, _votes)), bounds=(0, 1), device="cpu")
        start = LinearSearchBlendedUniformNoiseAttack(directions=100, steps=20)
        attack = HopSkipJumpAttack(
            init_attack=start,
            steps=self.steps,
            initial_gradient_eval_steps=50,
            max_gradient_eval_steps=200,
            # foolbox's 1 asks about frames that differ by less than a grey level: whole levels hide every answer.
            gamma=frames[0].size / 2,
            constraint=target.threat.norm,
        )
        x, y = planar(frames), torch.from_numpy(labels)
        begun = start.run(model, x, _misclassification(y))
        found = x.clone()
        outside = model(begun).argmax(-1) != y
        if bool(outside.any()):
            found[outside] = attack.run(
                model, x[outside], _misclassification(y[outside]), starting_points=begun[outside]
            )
        return pushed(target, frames, labels, found, seed)


@dataclass(frozen=True)
class UniformNoise(Attack):
    """Frames drawn from the bound, the last wrong one kept: what a gradient must beat to be worth anything."""

    name: ClassVar[str] = "uniform-noise"
    knowledge: ClassVar[Knowledge] = "none"
    paper: ClassVar[str] = "Carlini et al. 2019, arXiv:1902.06705, section 4"
    tries: int = 20

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        source, found = np.random.default_rng(seed), frames.copy()
        radius = target.threat.eps * FULL
        for number in range(self.tries):
            change = source.uniform(-1, 1, frames.shape)
            if target.threat.norm == "l2":
                change /= np.sqrt(np.square(change).sum(axis=(1, 2, 3), keepdims=True))
            moved = target.threat.project(frames, (frames + radius * change).astype(np.float32))
            wrong = target.shipped.labels(moved, seed + number) != labels
            found[wrong] = moved[wrong]
        return planar(found)


class _Module(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def _asked(target: Target, seed: int, answer: Callable[[Target, Pixels, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """The file's answer to frames N x C x H x W, 0..1, in whole grey levels; the entropy is another one every time."""
    draws = iter(range(seed, seed + 10**9))

    def ask(x: Tensor) -> Tensor:
        frames = np.rint(x.detach().permute(0, 2, 3, 1).numpy() * FULL).clip(0, FULL).astype(np.uint8)
        return answer(target, frames, next(draws))

    return ask


def _log_scores(target: Target, frames: Pixels, draw: int) -> Tensor:
    return as_logits(torch.from_numpy(target.shipped.scores(frames, draw)))


def _votes(target: Target, frames: Pixels, draw: int) -> Tensor:
    labels = torch.from_numpy(target.shipped.labels(frames, draw))
    return torch.nn.functional.one_hot(labels, target.shipped.classes).float()


def _misclassification(labels: Tensor) -> Any:
    from foolbox import Misclassification

    return Misclassification(labels)
