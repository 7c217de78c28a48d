"""Examples made on a copy of the file that an attacker trains on nothing but its answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgemask.auditing.attacks import Attack, Knowledge, Target, planar
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.operators import Tensor
from edgemask.auditing.shipped import Labels, Shipped
from edgemask.auditing.threat import FULL
from edgemask_runtime.formats import Pixels

FOLDS, MOST, LARGEST, BATCH = 2, 500, 64, 32
AUGMENTING = 25 / FULL
"""How far an image is moved to where the copy's answer changes, as Papernot et al. did."""

_copies: WeakKeyDictionary[Shipped, dict[tuple[int, int, int], nn.Module]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Substitute(Attack):
    """Auto-PGD on a small network that learnt the file's labels of images other than those attacked.

    The images are in two halves by their digest, so that a picture that is there twice is never in both; what is
    attacked in one is attacked on the copy that saw the other. In each of `rounds` the images are moved along the
    copy's own gradient, labelled by the file and added.
    """

    name: ClassVar[str] = "substitute"
    knowledge: ClassVar[Knowledge] = "decisions"
    paper: ClassVar[str] = "Papernot et al. 2017, arXiv:1602.02697"
    steps: int = 20
    rounds: int = 1
    epochs: int = 10

    def search(self, target: Target, frames: Pixels, labels: Labels, seed: int) -> Tensor:
        found, folds = planar(frames), folds_of(frames)
        for fold in range(FOLDS):
            mine = np.flatnonzero(folds == fold)
            if len(mine):
                copy = self.copy(target, fold)
                made = Apgd(steps=self.steps).on(copy, target.threat, frames[mine], labels[mine], seed)
                found[torch.from_numpy(mine)] = made
        return found

    def copy(self, target: Target, fold: int) -> nn.Module:
        """The network that saw no image of this half, trained once in a process."""
        known = _copies.setdefault(target.shipped, {})
        which = (fold, self.rounds, self.epochs)
        if which not in known:
            known[which] = self._trained(target, fold)
        return known[which]

    def _trained(self, target: Target, fold: int) -> nn.Module:
        images = target.images if target.images is not None else np.empty((0, 1, 1, 1), np.uint8)
        images = images[folds_of(images) != fold][:MOST]
        torch.manual_seed(fold)
        copy = _network(target.shipped.classes, images.shape[3])
        if not len(images):
            return copy.eval()
        known = target.shipped.labels(images, fold)
        for number in range(self.rounds):
            _train(copy, images, known, self.epochs)
            moved = _moved(copy, images, known)
            images = np.concatenate([images, moved])
            known = np.concatenate([known, target.shipped.labels(moved, fold + FOLDS * (number + 1))])
        return _train(copy, images, known, self.epochs).eval()


def folds_of(frames: Pixels) -> NDArray[np.int64]:
    """Which half each image is in."""
    digests = (hashlib.sha256(np.ascontiguousarray(frame).tobytes()).digest()[0] for frame in frames)
    return np.array([digest % FOLDS for digest in digests], np.int64)


class _Shrunk(nn.Module):  # type: ignore[misc]
    """Large pictures at 64 pixels a side: the copy need not be as good as the file, and is trained for every audit."""

    def forward(self, x: Tensor) -> Tensor:
        factor = -(-max(x.shape[2:]) // LARGEST)
        return nn.functional.avg_pool2d(x, factor) if factor > 1 else x


def _network(classes: int, channels: int) -> nn.Module:
    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]

    body = [*block(max(1, channels), 16), *block(16, 32), *block(32, 64), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(_Shrunk(), *body, nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, classes))


def _train(copy: nn.Module, images: Pixels, labels: Labels, epochs: int) -> nn.Module:
    x, y = planar(images), torch.from_numpy(labels)
    source, steps = torch.Generator().manual_seed(len(images)), torch.optim.Adam(copy.parameters(), 1e-3)
    copy.train()
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=source).split(BATCH):
            steps.zero_grad()
            nn.functional.cross_entropy(copy(x[part]), y[part]).backward()
            steps.step()
    return copy


def _moved(copy: nn.Module, images: Pixels, labels: Labels) -> Pixels:
    """The images, each moved along the sign of its own label's slope."""
    moved = []
    for at in range(0, len(images), BATCH):
        x = planar(images[at : at + BATCH]).requires_grad_()
        best = copy(x).gather(1, torch.from_numpy(labels[at : at + BATCH])[:, None]).sum()
        (slope,) = torch.autograd.grad(best, x)
        moved.append((x + AUGMENTING * slope.sign()).clamp(0, 1).detach())
    made: Pixels = np.rint(torch.cat(moved).permute(0, 2, 3, 1).numpy() * FULL).astype(np.uint8)
    return made
