"""Which attacks each budget runs, derived from what the chain is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemask.auditing.attacks import Attack
from edgemask.auditing.attacks.auto import CLASSES, Apgd, Fab, Loss
from edgemask.auditing.attacks.gradient import Fgsm, Pgd
from edgemask.auditing.attacks.queries import HopSkipJump, Square, UniformNoise
from edgemask.auditing.attacks.substitute import Substitute
from edgemask.auditing.attacks.transfer import Transfer
from edgemask.auditing.defence import Backward
from edgemask.auditing.finding import Budget
from edgemask.chain import Chain
from edgemask.steps import Mask


@dataclass(frozen=True)
class Effort:
    """How much each kind of attack may cost, an image."""

    steps: int
    restarts: int
    draws: tuple[int, ...]
    queries: int
    decisions: int
    rounds: int
    tries: int
    losses: tuple[Loss, ...]


EFFORTS: dict[Budget, Effort] = {
    "quick": Effort(20, 1, (1, 5), 200, 0, 1, 20, ("ce",)),
    "standard": Effort(40, 1, (1, 5, 20), 1000, 10, 2, 100, ("ce", "dlr", "margin", "dlr-targeted")),
    "full": Effort(100, 5, (1, 5, 20), 5000, 60, 3, 1000, ("ce", "dlr", "margin", "dlr-targeted")),
}


def attacks_for(chain: Chain, budget: Budget, *, classes: int, has_gradient: bool, gives_scores: bool) -> list[Attack]:
    """Naive ones, those that adapt to each mask, transfer, and those that only ask."""
    effort = EFFORTS[budget]
    attacks: list[Attack] = [UniformNoise(effort.tries)]
    if has_gradient:
        attacks += [Fgsm(), Pgd(2 * effort.steps), *_adaptive(chain, effort, classes), Transfer(effort.steps)]
    if gives_scores:
        attacks.append(Square(effort.queries))
    attacks.append(Substitute(effort.steps, effort.rounds))
    if effort.decisions:
        attacks.append(HopSkipJump(effort.decisions))
    return attacks


def undefended_attacks(budget: Budget) -> list[Attack]:
    """What the undefended model is compared by."""
    effort = EFFORTS[budget]
    return [UniformNoise(effort.tries), Apgd(steps=effort.steps, restarts=effort.restarts), Square(effort.queries)]


def _adaptive(chain: Chain, effort: Effort, classes: int) -> Sequence[Attack]:
    """For each way back through the masks every loss: cross-entropy with each number of draws, others with the most.

    Behind a mask that draws there is no boundary for FAB to find, and nine targets times all draws buy little: both
    are left out there, as AutoAttack's version for randomised defences does.
    """
    cuts = any(isinstance(link.step, Mask) and link.step.cuts for link in chain.links)
    ways: tuple[Backward, ...] = ("identity", "surrogate") if cuts else ("identity",)
    draws = effort.draws if chain.entropy_bytes else (1,)
    made: list[Attack] = [
        Apgd(loss, backward, effort.steps, effort.restarts, count)
        for backward in ways
        for loss in effort.losses
        if classes >= CLASSES[loss] and not (chain.entropy_bytes and loss == "dlr-targeted")
        for count in (draws if loss == "ce" else draws[-1:])
    ]
    seeks = effort.decisions and not chain.entropy_bytes
    return [*made, *(Fab(backward, effort.steps) for backward in ways if seeks)]
