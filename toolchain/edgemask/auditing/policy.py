"""What a recipe demands of its audit before it may be built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from edgemask.auditing.finding import Budget, Finding
from edgemask.auditing.threat import Norm, parse_eps
from edgemask.auditing.verdict import MIN_ROBUST_ACCURACY
from edgemask.errors import Rule, UserError
from edgemask.params import param
from edgemask_runtime.errors import EXIT_POLICY


class PolicyUnmet(UserError):
    """An audit that shows less than the recipe demands, or none."""

    exit_code: ClassVar[int] = EXIT_POLICY


def _is_eps(text: str) -> bool:
    try:
        return parse_eps(text) > 0
    except UserError:
        return False


@dataclass(frozen=True)
class PolicyEntry:
    """The least that an audit must show: a verdict, at a bound, by a budget, on so many images.

    `min_robust_accuracy`: the share that must be left, by the lower end of its interval; for EMPIRICAL it is 0.5 where
    none is stated.
    """

    require: Literal["EMPIRICAL", "not BROKEN"]
    eps: str = field(metadata=Rule("8/255 or 0.03", _is_eps).metadata)
    norm: Norm = "linf"
    min_robust_accuracy: float | None = param(None, doc="share that must be left", low=0.0, high=1.0)
    budget: Budget = "quick"
    min_images: int = param(1, doc="images that must be attacked", low=1)

    @property
    def least(self) -> float:
        """The share that must be left."""
        if self.min_robust_accuracy is not None:
            return self.min_robust_accuracy
        return MIN_ROBUST_ACCURACY if self.require == "EMPIRICAL" else 0.0

    def unmet(self, found: Finding) -> Iterator[str]:
        """Everything in which the audit falls short."""
        if found.threat.norm != self.norm:
            yield f"its norm is {found.threat.norm}, not {self.norm}"
        elif found.threat.eps < parse_eps(self.eps) - 1e-9:
            yield f"it is at {found.threat}, not at eps {self.eps}"
        budgets = get_args(Budget)
        if budgets.index(found.budget) < budgets.index(self.budget):
            yield f"its budget is {found.budget}, not {self.budget}"
        if found.n < self.min_images:
            yield f"it is of {found.n} images, not {self.min_images}"
        robustness = found.verdict.robustness
        if robustness == "BROKEN" or (self.require == "EMPIRICAL" and robustness != "EMPIRICAL"):
            yield f"robustness is {robustness}, not {self.require}"
        if found.worst.low < self.least:
            yield f"only {found.worst.low:.1%} are surely left, not {self.least:.1%}"

    def demand(self, name: str, found: Finding | None) -> None:
        """PolicyUnmet unless there is an audit, and it shows enough."""
        if found is None:
            raise PolicyUnmet(
                f"{name}: $.policy demands an audit, and there is none of this very file",
                f"edgemask audit RECIPE --data IMAGES --eps {self.eps}; then build here, or with --audit FOLDER",
            )
        if short := "; ".join(self.unmet(found)):
            raise unmet_by(name, short)


def unmet_by(name: str, short: str) -> PolicyUnmet:
    """The error that says where an audit falls short."""
    return PolicyUnmet(f"{name}: the audit does not meet $.policy: {short}", "audit.html shows what broke it")
