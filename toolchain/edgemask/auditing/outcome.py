"""What an audit found, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgemask import __version__
from edgemask.auditing.convergence import Trace
from edgemask.auditing.finding import Budget, Finding, finding_of
from edgemask.auditing.indicators import Indicator
from edgemask.auditing.policy import unmet_by
from edgemask.auditing.threat import Threat
from edgemask.auditing.verdict import Verdict
from edgemask.metrics.intervals import Figure
from edgemask_runtime.formats import Pixels

SCHEMA = 1
CURVE_FRAMES = 64
"""Images that other bounds are tried on."""


@dataclass(frozen=True)
class Row:
    """What one attack left right, of all frames, with its 95 % interval."""

    attack: str
    knowledge: str
    left: Figure
    seconds: float
    settings: Mapping[str, Any]
    paper: str


@dataclass(frozen=True)
class Report:
    """All that one audit showed. Shares are of frames; behind a mask that draws they are means over fresh draws.

    `bound_on`: which picture the attacker may change. `worst` is the headline: of each frame what the worst of all
    attacks leaves. `curve`: (eps, share) of the adaptive attack. `corruptions`: by name the share at each of five
    severities; `corrupted`: the mean over all of them. `no_gradient`: why none could be followed. `unmet`: where it
    falls short of the recipe's policy. `notes`: what a reader must know beside. `traces`: how
    attacks got on.
    """

    name: str
    sha256: str
    engine: str
    budget: Budget
    threat: Threat
    bound_on: str
    knows: tuple[str, ...]
    n: int
    classes: int
    clean: Figure
    rows: tuple[Row, ...]
    naive: Figure | None
    adaptive: Figure | None
    worst: Figure
    least: float
    compared: Mapping[str, tuple[Row, ...]]
    corruptions: Mapping[str, tuple[float, ...]]
    corrupted: Figure
    curve: tuple[tuple[float, float], ...]
    indicators: tuple[Indicator, ...]
    verdict: Verdict
    no_gradient: str | None
    notes: tuple[str, ...]
    traces: tuple[Trace, ...] = ()
    edgemask: str = __version__
    unmet: tuple[str, ...] = ()
    examples: tuple[tuple[Pixels, Pixels], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the pictures."""
        data = asdict(replace(self, examples=()))
        return {"schema": SCHEMA, **{name: value for name, value in data.items() if name != "examples"}}

    def finding(self) -> Finding:
        """The verdict with what it holds for, as a build reads it."""
        return finding_of(json.loads(json.dumps(self.to_json())), "audit")

    def require_policy(self) -> None:
        """PolicyUnmet where this shows less than the recipe demands."""
        if self.unmet:
            raise unmet_by(self.name, "; ".join(self.unmet))
