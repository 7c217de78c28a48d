"""The defence as an attacker with the file sees it: the chain around the model's twin, on PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
import torch
from onnx import ModelProto

from edgemask.auditing.operators import Tensor
from edgemask.auditing.twin import Twin
from edgemask.chain import Chain
from edgemask.ops.protocol import Ops, T
from edgemask.ops.torch import TorchOps
from edgemask.spec import Spec
from edgemask.steps import Map, Mask

Backward = Literal["exact", "identity", "surrogate"]
ENTROPY = "entropy"
LEAST = 1e-30
"""Below it the logarithm of a probability says nothing."""


class Defence:
    """Scores of frames [N, H, W, C], real numbers 0..255, through the chain and the model's twin, with gradients.

    `backward`: exact is the graph as it is, whose cuts pass nothing; identity passes the gradient through each mask as
    if it were not there (BPDA, Athalye et al. 2018), straight through its cuts where its shape differs; surrogate
    differentiates each mask's own smooth stand-in. Forward all three are the mask itself. `quantisation`: scale and
    zero point of the scores. `one_by_one`: the model takes one image at a time.
    """

    def __init__(
        self,
        chain: Chain,
        proto: ModelProto,
        scores: str,
        key: bytes | None = None,
        quantisation: tuple[float, int] | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._chains = {backward: _seen(chain, backward) for backward in get_args(Backward)}
        self._twin = Twin(proto)
        self._image = chain.links[-1].step.parameters()["name"]
        self.scores = scores
        self._key = None if key is None else torch.from_numpy(np.frombuffer(key, np.uint8).copy())
        self.entropy_bytes = chain.entropy_bytes
        self._scale, self._zero_point = quantisation or (1.0, 0)
        self._one_by_one = one_by_one

    def logits(self, frames: Tensor, backward: Backward, draw: np.random.Generator) -> Tensor:
        """The model's scores, [N, classes]; probabilities as their logarithms. Entropy is fresh from `draw`."""
        entropy = None
        if self.entropy_bytes:
            entropy = torch.from_numpy(draw.integers(0, 256, (len(frames), self.entropy_bytes), np.uint8))
        return as_logits(self.raw(frames, entropy, backward))

    def raw(self, frames: Tensor, entropy: Tensor | None, backward: Backward = "exact") -> Tensor:
        """The model's scores as it gives them, [N, classes]; quantised ones as the real numbers they stand for."""
        ops = TorchOps("exact" if backward == "exact" else "straight-through")
        key = None if self._key is None else self._key.expand(len(frames), -1)
        outputs = self._chains[backward].run(ops, frames, entropy, lambda x: self._model(x, entropy), key=key)
        return (outputs[self.scores].reshape(len(frames), -1) - self._zero_point) * self._scale

    def _model(self, x: Tensor, entropy: Tensor | None) -> dict[str, Tensor]:
        feeds = {name: entropy for name in self._twin.inputs if name == ENTROPY and entropy is not None}
        feeds[self._image] = x
        if not self._one_by_one:
            return self._twin(feeds)
        rows = [self._twin({name: value[at : at + 1] for name, value in feeds.items()}) for at in range(len(x))]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


class View(torch.nn.Module):  # type: ignore[misc]
    """A Defence as attack libraries want a model: N x C x H x W in 0..1 to logits, over `draws` of the entropy.

    The mean over the draws is the expectation over transformation (Athalye et al. 2018).
    """

    def __init__(self, defence: Defence, backward: Backward, draws: int, seed: int) -> None:
        super().__init__()
        self._defence, self._backward = defence, backward
        self._draws = draws if defence.entropy_bytes else 1
        self._source = np.random.default_rng(seed)
        self.calls = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits; joined to `x` even where no gradient flows, so that a library finds zeros and no error."""
        self.calls += len(x)
        frames = x.permute(0, 2, 3, 1) * 255
        made = [self._defence.logits(frames, self._backward, self._source) for _ in range(self._draws)]
        mean = made[0] if len(made) == 1 else torch.stack([scores.log_softmax(1) for scores in made]).mean(0)
        return mean + 0 * x.sum()


@dataclass(frozen=True)
class _Bpda(Map):
    """A mask forward; backward what stands in for it."""

    kind: ClassVar[str] = "bpda"
    mask: Mask
    backward: Backward

    def spec(self, x: Spec) -> Spec:
        return self.mask.spec(x)

    def build(self, ops: Ops[T], x: T, entropy: T | None) -> T:
        return cast(T, self._forward(cast(Tensor, x), entropy, ops))

    def _forward(self, x: Tensor, entropy: Tensor | None, ops: Any) -> Tensor:
        exact = self.mask.build(TorchOps("exact"), x.detach(), entropy).float()
        if self.backward == "surrogate":
            slope = self.mask.surrogate(TorchOps("smooth"), x, entropy, 1.0)
        else:
            slope = x if exact.shape == x.shape else self.mask.build(ops, x, entropy)
        return exact + (slope - slope.detach())


def _seen(chain: Chain, backward: Backward) -> Chain:
    """The chain without what stands behind the model's scores, its masks as the attacker differentiates them."""
    links = tuple(
        replace(link, step=_Bpda(link.step, backward))
        if isinstance(link.step, Mask) and link.step.cuts and backward != "exact"
        else link
        for link in chain.links
    )
    return replace(chain, links=links, tails=())


def as_logits(scores: Tensor) -> Tensor:
    """Probabilities as their logarithms, other scores as they are."""
    plain = scores.detach()
    if bool((plain >= 0).all()) and bool(torch.allclose(plain.sum(1), torch.ones(len(plain)), atol=1e-3)):
        return scores.clamp_min(LEAST).log()
    return scores
