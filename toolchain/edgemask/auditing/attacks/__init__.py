"""Attacks, each through a library that the field uses; only what joins them to the file is ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from edgemask.auditing.defence import Backward, Defence, View
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels, Shipped
from edgemask.auditing.threat import FULL, Threat
from edgemask_runtime.formats import Pixels

NORMS = {"linf": "Linf", "l2": "L2"}
"""What pyautoattack calls them."""
Knowledge = Literal["none", "naive", "adaptive", "transfer", "scores", "decisions"]


@dataclass(frozen=True)
class Target:
    """What is attacked, and within which bound.

    `shipped` is the file on its engine, `defence` the same with gradients, `undefended` the model without its masks;
    without a twin of the model both are None. `images`: pictures that an attacker has, without their labels.
    """

    shipped: Shipped
    threat: Threat
    defence: Defence | None
    undefended: Defence | None
    images: Pixels | None = None


@dataclass(frozen=True)
class Attack(ABC):
    """A search for frames within the bound that are not classified right; what it knows of the file is `knowledge`."""

    name: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    paper: ClassVar[str]

    @property
    def title(self) -> str:
        """The attack with its settings, as a table names it."""
        return self.name

    @abstractmethod
    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        """Frames as N x C x H x W, 0..1, near the bound or within it."""

    def run(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Pixels:
        """What was found, in whole grey levels and within the bound."""
        torch.manual_seed(seed)
        found = self.search(target, frames, labels, seed).detach().permute(0, 2, 3, 1).numpy() * FULL
        return target.threat.project(frames, found)


def planar(frames: Pixels) -> Tensor:
    """Frames as attack libraries take them: N x C x H x W, 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / FULL


def pushed(target: Target, frames: Pixels, labels: Labels, found: Tensor, draw: int) -> Tensor:
    """Nearest frames on the other side of the boundary, moved on as far as the bound allows where that is needed.

    They lie so close to it that whole grey levels put them back: of each, the first of three lengths that the file,
    asked, does not classify right is taken.
    """
    clean = planar(frames)
    change, best = found - clean, found.clone()
    sizes = change.flatten(1).norm(dim=1, p=torch.inf if target.threat.norm == "linf" else 2).clamp_min(1e-9)
    for share in (1.0, 0.5, 0.0):
        longer = (1 + share * (target.threat.eps / sizes - 1).clamp_min(0)).reshape(-1, 1, 1, 1)
        moved = clean + longer * change
        levels = moved.permute(0, 2, 3, 1).numpy() * FULL
        wrong = torch.from_numpy(target.shipped.labels(target.threat.project(frames, levels), draw) != labels)
        best[wrong] = moved[wrong]
    return best


def view(defence: Defence | None, backward: Backward, draws: int, seed: int) -> View:
    """The defence as a library's model; there must be one."""
    if defence is None:
        raise ValueError("a white-box attack on a model without a twin")
    return View(defence, backward, draws, seed)
