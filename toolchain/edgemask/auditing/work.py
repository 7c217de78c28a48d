"""One attack on one shard of the frames: what travels to a process or a machine, and what comes back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from numpy.typing import NDArray

from edgemask.auditing.attacks import Attack, Target
from edgemask.auditing.setting import Setting
from edgemask.auditing.shipped import Labels, Shipped
from edgemask.auditing.threat import Threat
from edgemask_runtime.formats import Pixels

CHOOSING, JUDGING = range(1000, 1010), range(2000, 2020)
"""Draws of the entropy: some choose the worst attack on a frame, others, which no attack saw, judge it."""
PACKAGES = ("edgemask", "torch", "numpy", "onnxruntime", "ai-edge-litert", "foolbox", "pyautoattack")

_targets: dict[str, Target] = {}


@dataclass(frozen=True)
class Outcome:
    """What an attack found: frames, and how often each is classified right, over draws to choose by and to judge by.

    `seconds` are the processor's.
    """

    found: Pixels
    chosen: NDArray[np.float64]
    judged: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True, eq=False)
class Job:
    """An attack on some frames; it gives the same wherever it runs. `setting` is its digest."""

    setting: str
    threat: Threat
    attack: Attack
    frames: Pixels
    labels: Labels
    seed: int


Runner = Callable[[Mapping[str, Setting], Sequence[Job]], Iterator[tuple[int, Outcome]]]
"""Takes settings by their digests and carries jobs out, in any order; says which one gave what."""


def here(settings: Mapping[str, Setting], jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
    """In this process, one after another."""
    for number, job in enumerate(jobs):
        yield number, execute(settings[job.setting], job)


def execute(setting: Setting, job: Job) -> Outcome:
    """Run one job here."""
    # With more threads sums come in another order, and a search that follows their last digit finds something else.
    torch.set_num_threads(1)
    target, begun = _target(setting, job.threat), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = job.attack.run(target, job.frames, job.labels, job.seed)
    judged = [rightness(target.shipped, found, job.labels, draws) for draws in (CHOOSING, JUDGING)]
    return Outcome(found, judged[0], judged[1], time.process_time() - begun)


def rightness(shipped: Shipped, frames: Pixels, labels: Labels, draws: Sequence[int]) -> NDArray[np.float64]:
    """Of each frame the share of draws in which it is classified right; without randomness one draw is enough."""
    wanted = draws if shipped.is_random else draws[:1]
    shares: NDArray[np.float64] = np.mean([shipped.labels(frames, draw) == labels for draw in wanted], axis=0)
    return shares


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Of the packages that a result may depend on, those that are installed here."""
    return tuple((name, found) for name in PACKAGES if (found := _version(name)))


def _target(setting: Setting, threat: Threat) -> Target:
    """What is attacked, made once in a process."""
    name = f"{setting.digest} {threat!r}"
    if name not in _targets:
        _targets[name] = setting.target(threat)
    return _targets[name]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
