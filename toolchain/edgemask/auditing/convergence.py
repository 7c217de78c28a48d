"""How an attack gets on, iteration by iteration: one that has not settled says little of the model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from edgemask.auditing.attacks import Attack, Target
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.defence import Backward, Defence
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels
from edgemask_runtime.formats import Pixels

FRAMES, SEED = 16, 20180710


@dataclass(frozen=True)
class Trace:
    """Of the first frames, in each iteration, the mean loss and the share still right, on PyTorch's twin."""

    attack: str
    knowledge: str
    loss: tuple[float, ...]
    left: tuple[float, ...]


def traces(target: Target, frames: Pixels, labels: Labels, attacks: Sequence[Attack]) -> tuple[Trace, ...]:
    """Run each attack again on the first frames that are right, and watch it; nothing without a twin."""
    defence = target.defence
    if defence is None:
        return ()
    right = np.flatnonzero(target.shipped.labels(frames[: 4 * FRAMES], 0) == labels[: 4 * FRAMES])[:FRAMES]
    torch.set_num_threads(1)
    return tuple(_traced(target, defence, frames[right], labels[right], attack) for attack in attacks if len(right))


class _Watched:
    """A Defence that notes what it is asked; each call is one draw."""

    def __init__(self, defence: Defence, labels: Labels) -> None:
        self._defence, self._labels = defence, torch.from_numpy(labels)
        self.entropy_bytes = defence.entropy_bytes
        self.seen: list[Tensor] = []

    def logits(self, frames: Tensor, backward: Backward, draw: np.random.Generator) -> Tensor:
        """What the defence gives."""
        given = self._defence.logits(frames, backward, draw)
        # Why not others: an attack may go on with those frames alone that it has not fooled yet.
        if len(given) == len(self._labels):
            self.seen.append(given.detach().log_softmax(1))
        return given

    def means(self, draws: int) -> list[Tensor]:
        """The scores of each iteration, over so many draws."""
        return [torch.stack(self.seen[at : at + draws]).mean(0) for at in range(0, len(self.seen) - draws + 1, draws)]


def _traced(target: Target, defence: Defence, frames: Pixels, labels: Labels, attack: Attack) -> Trace:
    watched = _Watched(defence, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack.run(replace(target, defence=cast(Defence, watched)), frames, labels, SEED)
    is_auto = isinstance(attack, Apgd)
    draws = attack.draws if isinstance(attack, Apgd) and defence.entropy_bytes else 1
    # Auto-PGD looks at the clean frames first.
    scores, y = watched.means(draws)[1 if is_auto else 0 :], torch.from_numpy(labels)
    return Trace(
        attack.title,
        attack.knowledge,
        tuple(float(torch.nn.functional.nll_loss(row, y)) for row in scores),
        tuple(float((row.argmax(1) == y).double().mean()) for row in scores),
    )
