"""A random subset of a group of masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import numpy as np

from edgemask.ops.draws import DRAW_BYTES, draw_below
from edgemask.ops.protocol import Ops, T
from edgemask.ops.rounding import to_float
from edgemask.params import param
from edgemask.spec import Misfit, Spec
from edgemask.steps import Family, Mask, given, parse_step

GROUP = "bit-depth:bits=4+jpeg:quality=60+noise+random-affine+random-colour+median"


@dataclass(frozen=True)
class Bart(Mask):
    """Apply `k` masks of a group, drawn anew for every frame; each choice of `k` is equally likely.

    The paper draws from 25 transforms, their order too, and trains the model with them; here the order is the
    group's. Every mask is computed and the draw decides what is taken. The proof finds no cut, for any mask may be
    left out: it does not see that a group of cutting masks always leaves one in.
    """

    kind: ClassVar[str] = "bart"
    family: ClassVar[Family] = "stochastic"
    paper: ClassVar[str] = "Raff, Sylvester, Forsyth and McLean 2019, CVPR (barrage of random transforms)"
    claim: ClassVar[str] = "many weak transforms together are strong, though none is alone"
    fate: ClassVar[str] = (
        "its evaluation overestimates it; not robust under a better attack (Sitawarin et al. 2022, arXiv:2207.03574)"
    )
    group: str = param(GROUP, doc="masks that keep the shape, in order, as --mask takes them, joined by +")
    k: int = param(3, doc="how many masks of the group a frame gets", low=1)

    def spec(self, x: Spec) -> Spec:
        masks = self._masks()
        if self.k > len(masks):
            raise Misfit(f"draws {self.k} of {len(masks)} masks", "lower `k` or name more masks in `group`")
        for mask in masks:
            if mask.spec(x) != x or mask.key_bytes(x) or mask.retrain:
                raise Misfit(f"cannot draw {mask.kind}", "take masks that keep the shape and need no key or retraining")
        return x

    def entropy_bytes(self, x: Spec) -> int:
        return self._bounds(x)[-1]

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        entropy = given(entropy)
        height, width, channels = ops.shape(x)
        bounds = self._bounds(Spec.image(height, width, "rgb" if channels == 3 else "gray"))
        taken, x = self._draws(ops, ops.slice(entropy, 0, 0, bounds[0])), to_float(ops, x)
        for mask, (begin, end), take in zip(self._masks(), pairwise(bounds), taken, strict=True):
            share = ops.slice(entropy, 0, begin, end) if end > begin else None
            x = ops.where(take, to_float(ops, mask.build(ops, x, share)), x)
        return x

    def _draws(self, ops: Ops[T], entropy: T) -> Iterator[T]:
        """Whether each mask is taken: with probability (still to take) / (still to come), so exactly `k` are."""
        masks = len(self._masks())
        left = ops.const(np.full((1, 1, 1), self.k, np.float32))
        for index in range(masks):
            share = ops.slice(entropy, 0, index * DRAW_BYTES, (index + 1) * DRAW_BYTES)
            take = ops.greater(left, ops.reshape(draw_below(ops, share, masks - index), (1, 1, 1)))
            left = ops.sub(left, ops.cast(take, "float32"))
            yield take

    def _bounds(self, x: Spec) -> list[int]:
        """Where each mask's share of the entropy begins, behind the draws, and where the last one ends."""
        bounds = [DRAW_BYTES * len(self._masks())]
        for mask in self._masks():
            bounds.append(bounds[-1] + mask.entropy_bytes(x))
        return bounds

    def _masks(self) -> list[Mask]:
        return [cast(Mask, parse_step(text, ("mask",))) for text in self.group.split("+")]
