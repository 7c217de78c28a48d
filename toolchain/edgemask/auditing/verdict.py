"""The verdict: what an audit may say, in two fields; never "secure"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgemask.auditing.indicators import Indicator

GradientWord = Literal["useful", "shattered", "stochastic", "vanishing", "unknown"]
RobustnessWord = Literal["BROKEN", "NOT SHOWN", "EMPIRICAL"]
BROKEN_BELOW = 0.10
BLIND = "zero gradient of the adaptive attack"
MIN_ROBUST_ACCURACY = 0.5


@dataclass(frozen=True)
class Verdict:
    """What the gradient is worth to an attacker who does not adapt, and what is left when one does.

    BROKEN: at most the greater of chance and 10 % is right, by the upper end of the 95 % interval. EMPIRICAL: at
    least the demanded share is right, by the lower end, and no sign of masking is unexplained. NOT SHOWN: all else.
    """

    gradient: GradientWord
    robustness: RobustnessWord
    reason: str


def judge(
    signs: Sequence[Indicator],
    worst: tuple[float, float],
    chance: float,
    *,
    has_gradient: bool,
    is_random: bool,
    least: float = MIN_ROBUST_ACCURACY,
) -> Verdict:
    """`worst`: the 95 % interval of what the worst attack on each frame leaves right."""
    flagged = {sign.name for sign in signs if sign.flagged}
    word = _gradient(flagged, has_gradient=has_gradient, is_random=is_random)
    bar = max(chance, BROKEN_BELOW)
    if worst[1] < bar:
        return Verdict(word, "BROKEN", f"an adaptive attack leaves less than {bar:.0%} right")
    if not has_gradient:
        return Verdict(word, "NOT SHOWN", "no attack that follows a gradient could be run")
    if unresolved := sorted(flagged & UNRESOLVED):
        return Verdict(word, "NOT SHOWN", f"signs of masking that no attack here explains: {', '.join(unresolved)}")
    if worst[0] >= least:
        return Verdict(word, "EMPIRICAL", f"every attack here leaves at least {least:.0%} right; others may not")
    return Verdict(word, "NOT SHOWN", f"between {worst[0]:.0%} and {worst[1]:.0%} are left, {least:.0%} are asked for")


UNRESOLVED = {
    BLIND,
    "adaptive attack left without a bound",
    "asking for scores beats the adaptive attack",
    "random noise beats the adaptive attack",
    "a copy trained on the file's answers beats the adaptive attack",
    "the unmasked model's gradient beats the adaptive attack",
}
"""Signs that the adaptive attack itself is misled; the gap of a naive one is explained by it."""


def _gradient(flagged: set[str], *, has_gradient: bool, is_random: bool) -> GradientWord:
    if not has_gradient:
        return "unknown"
    if flagged & {"zero gradient", "gradient is no number", "agrees with finite differences"}:
        return "shattered"
    if is_random:
        return "stochastic"
    return "vanishing" if "saturated scores" in flagged else "useful"
