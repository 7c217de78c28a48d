"""AutoAttack's parts, through pyautoattack, on the defence as an attacker who adapts differentiates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from edgemask.auditing.attacks import NORMS, Attack, Knowledge, Target, planar, pushed, view
from edgemask.auditing.defence import Backward
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import Threat
from edgemask_runtime.formats import Pixels

Loss = Literal["ce", "dlr", "margin", "dlr-targeted"]
CLASSES: dict[Loss, int] = {"ce": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4}
"""How many classes a loss needs: the ratio's denominator is made of the third best score, and of the fourth."""


@dataclass(frozen=True)
class Apgd(Attack):
    """Auto-PGD, on cross-entropy, the difference of logits ratio, or the latter towards each of the next best classes.

    `margin`: by how much the best other class leads (Carlini and Wagner 2017, arXiv:1608.04644).
    `draws`: of the entropy, over which each gradient is averaged (EOT).
    """

    name: ClassVar[str] = "apgd"
    knowledge: ClassVar[Knowledge] = "adaptive"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:2003.01690"
    loss: Loss = "ce"
    backward: Backward = "identity"
    steps: int = 20
    restarts: int = 1
    draws: int = 1

    @property
    def title(self) -> str:
        eot = f" EOT {self.draws}" if self.draws > 1 else ""
        return f"apgd-{self.loss} {self.backward}{eot}"

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        return self.on(view(target.defence, self.backward, self.draws, seed), target.threat, frames, labels, seed)

    def on(self, model: Any, threat: Threat, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        """The same search on any model."""
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        settings = {
            "n_iter": self.steps,
            "norm": NORMS[threat.norm],
            "n_restarts": self.restarts,
            "eps": threat.eps,
            "seed": seed,
            "device": "cpu",
        }
        x, y = planar(frames), torch.from_numpy(labels)
        if self.loss == "dlr-targeted":
            classes = _classes(model, x)
            attack = APGDAttack_targeted(model, n_target_classes=min(9, classes - 1), **settings)
        else:
            attack = APGDAttack(model, loss="ce" if self.loss == "ce" else "dlr", **settings)
            if self.loss == "margin":
                attack.dlr_loss = margin
        return attack.perturb(x, y)


@dataclass(frozen=True)
class Fab(Attack):
    """Fast adaptive boundary: the nearest frame on the other side of the boundary."""

    name: ClassVar[str] = "fab"
    knowledge: ClassVar[Knowledge] = "adaptive"
    paper: ClassVar[str] = "Croce and Hein 2020, arXiv:1907.02044"
    backward: Backward = "identity"
    steps: int = 20

    @property
    def title(self) -> str:
        return f"fab {self.backward}"

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        from pyautoattack.fab_pt import FABAttack_PT

        model = view(target.defence, self.backward, 1, seed)
        x, y = planar(frames), torch.from_numpy(labels)
        attack = FABAttack_PT(
            model,
            norm=NORMS[target.threat.norm],
            n_restarts=1,
            n_iter=self.steps,
            eps=target.threat.eps,
            seed=seed,
            targeted=True,
            n_target_classes=min(9, _classes(model, x) - 1),
            device="cpu",
        )
        return pushed(target, frames, labels, attack.perturb(x, y).detach(), seed)


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """By how much the best of the other classes leads."""
    own = labels[:, None]
    others = scores.scatter(1, own, -torch.inf).amax(1)
    return others - scores.gather(1, own)[:, 0]


def _classes(model: Any, x: Tensor) -> int:
    with torch.no_grad():
        return int(model(x[:1]).shape[1])
