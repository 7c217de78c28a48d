"""The audit: naive and adaptive attacks on the file that ships, signs of masking, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemask.auditing.attacks import Attack, Target
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.attacks.gradient import Pgd
from edgemask.auditing.budgets import EFFORTS, attacks_for, undefended_attacks
from edgemask.auditing.campaign import Found, Subject, Task, Trial, run, tasks_of
from edgemask.auditing.convergence import traces
from edgemask.auditing.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from edgemask.auditing.finding import Budget
from edgemask.auditing.indicators import Indicator, of_gradient, of_randomness, of_rows
from edgemask.auditing.outcome import CURVE_FRAMES, Report, Row
from edgemask.auditing.processes import processes
from edgemask.auditing.setting import Scene, Setting, scene_of, setting_of
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import Threat
from edgemask.auditing.verdict import MIN_ROBUST_ACCURACY, judge
from edgemask.auditing.work import JUDGING, Runner, rightness
from edgemask.baking import Plan
from edgemask.errors import UserError
from edgemask.metrics.intervals import Figure, Statistic, figure
from edgemask.recipe import Recipe
from edgemask_runtime.formats import Pixels

CURVE = (0.25, 0.5, 2.0)
"""Other bounds that the adaptive attack is tried at, in units of the one asked."""
UNBOUNDED_FRAMES, EXAMPLES = 16, 4
FILE, UNDEFENDED, UNBOUNDED = "the file", "undefended", "unbounded"

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """What is asked of an audit; `compare` names recipes that go through the same attacks as the undefended model.

    `frames` are the camera's; `notes` go into the report.
    """

    plan: Plan
    threat: Threat
    frames: Pixels
    labels: Labels
    kept: Path
    budget: Budget = "quick"
    key: bytes | None = None
    least: float = MIN_ROBUST_ACCURACY
    compare: Mapping[str, Recipe] = field(default_factory=dict)
    runner: Runner = field(default_factory=lambda: processes(0))
    progress: Callable[[int, int], None] = lambda done, of: None
    notes: tuple[str, ...] = ()


def carry_out(order: Order) -> Report:
    """Run every attack of the budget and judge; UserError when the model does no better than chance on the data."""
    scene = scene_of(order.plan, order.frames, order.key)
    target, why_not = scene.file.target(order.threat), scene.file.no_gradient
    camera, order = order.frames, replace(order, frames=scene.frames)
    clean = rightness(target.shipped, order.frames, order.labels, JUDGING)
    classes = target.shipped.classes
    _check(order, classes, clean)
    found = _run(order, _trials(order, scene, target, _others(order, camera)))
    worst = _worst([(clean, clean), *((one.chosen, one.judged) for one in found[FILE].values())])
    signs = _signs(order, target, found, 1 / classes)
    random = target.shipped.is_random
    left = interval_of(worst)
    weathered = _corruptions(target, order)
    verdict = judge(
        signs, (left.low, left.high), 1 / classes, has_gradient=not why_not, is_random=random, least=order.least
    )
    return Report(
        name=order.plan.recipe.name,
        sha256=target.shipped.sha256,
        engine=target.shipped.engine_name,
        budget=order.budget,
        threat=order.threat,
        bound_on=scene.bound_on,
        knows=tuple(dict.fromkeys(attack.knowledge for attack in found[FILE])),
        n=len(order.labels),
        classes=classes,
        clean=interval_of(clean),
        rows=_rows(found[FILE]),
        naive=_of_knowledge(found[FILE], "naive"),
        adaptive=_of_knowledge(found[FILE], "adaptive"),
        worst=left,
        least=order.least,
        compared={name: _rows(found[name]) for name in (UNDEFENDED, *order.compare) if name in found},
        corruptions={name: tuple(map(float, right.mean(axis=1))) for name, right in weathered.items()},
        corrupted=interval_of(np.mean([right.mean(axis=0) for right in weathered.values()], axis=0)),
        curve=_curve(order, found, clean),
        indicators=tuple(signs),
        verdict=verdict,
        no_gradient=why_not,
        notes=(*order.notes, *(scene.file.defence.notes if scene.file.defence else ())),
        traces=traces(target, order.frames, order.labels, [*_naive(found[FILE]), *_strongest(list(found[FILE]))]),
        examples=_examples(order, found[FILE], clean),
    )


def interval_of(right: Shares) -> Figure:
    """The mean with its interval: Wilson's where every frame is right or wrong, the bootstrap where shares are."""
    if np.isin(right, (0.0, 1.0)).all():
        return figure(Statistic.share(right.astype(np.bool_)))
    made = figure(Statistic(len(right), lambda weights: weights @ right / weights.sum(1)))
    return Figure(made.value, max(0.0, made.low), min(1.0, made.high))


def _others(order: Order, camera: Pixels) -> dict[str, Setting]:
    """The models that are compared, as the camera's frames reach them."""
    return {name: setting_of(recipe, camera) for name, recipe in order.compare.items()}


def _trials(order: Order, scene: Scene, target: Target, others: Mapping[str, Setting]) -> dict[str, Trial]:
    subject = Subject(scene.file, order.threat, order.frames, order.labels)
    has_gradient, chain = target.defence is not None, order.plan.chain
    classes, scores = target.shipped.classes, target.shipped.gives_scores
    attacks = attacks_for(chain, order.budget, classes=classes, has_gradient=has_gradient, gives_scores=scores)
    trials = {FILE: Trial(subject, attacks)}
    if not has_gradient:
        return trials
    for name, setting in {UNDEFENDED: scene.undefended, **others}.items():
        possible = [one for one in undefended_attacks(order.budget) if scores or one.knowledge != "scores"]
        trials[name] = Trial(replace(subject, setting=setting), possible)
    strongest = _strongest(attacks)
    for factor in CURVE:
        threat = replace(order.threat, eps=order.threat.eps * factor)
        trials[_at(factor)] = Trial(_first(replace(subject, threat=threat), CURVE_FRAMES), strongest)
    free = replace(order.threat, eps=order.threat.reach(order.frames.shape[1:]))
    naive = Pgd(2 * EFFORTS[order.budget].steps)
    trials[UNBOUNDED] = Trial(_first(replace(subject, threat=free), UNBOUNDED_FRAMES), [naive, *strongest])
    return trials


def _run(order: Order, trials: Mapping[str, Trial]) -> dict[str, Found]:
    total = sum(len(tasks_of(trial)) for trial in trials.values())
    finished = 0

    def done(_: Task) -> None:
        nonlocal finished
        finished += 1
        order.progress(finished, total)

    return run(trials, order.kept, order.runner, done=done)


def _worst(outcomes: Sequence[tuple[Shares, Shares]]) -> Shares:
    """What the worst attack on each frame leaves: chosen by some draws, judged by others."""
    chosen, judged = (np.stack(shares) for shares in zip(*outcomes, strict=True))
    worst: Shares = np.take_along_axis(judged, chosen.argmin(axis=0)[None], 0)[0]
    return worst


def _rows(found: Found) -> tuple[Row, ...]:
    return tuple(
        Row(
            attack.title,
            attack.knowledge,
            interval_of(outcome.judged),
            outcome.seconds,
            {"attack": attack.name, **asdict(attack)},
            attack.paper,
        )
        for attack, outcome in found.items()
    )


def _of_knowledge(found: Found, knowledge: str) -> Figure | None:
    """What the worst attack of one kind leaves of each frame."""
    taken = [(outcome.chosen, outcome.judged) for attack, outcome in found.items() if attack.knowledge == knowledge]
    return interval_of(_worst(taken)) if taken else None


def _strongest(attacks: Sequence[Attack]) -> list[Attack]:
    """For the curve: one adaptive attack each way, with the most draws."""
    best: dict[str, Attack] = {}
    for attack in attacks:
        if isinstance(attack, Apgd) and attack.loss == "ce":
            best[attack.backward] = attack
    return list(best.values())


def _naive(found: Found) -> list[Attack]:
    return [attack for attack in found if isinstance(attack, Pgd)]


def _signs(order: Order, target: Target, found: Mapping[str, Found], chance: float) -> list[Indicator]:
    signs = [of_randomness(target, order.frames)]
    if target.defence is None:
        return signs
    left = {attack.name: float(outcome.judged.mean()) for attack, outcome in found[FILE].items()}
    adaptive = _of_knowledge(found[FILE], "adaptive")
    free = {attack.name: float(outcome.judged.mean()) for attack, outcome in found[UNBOUNDED].items()}
    strongest = _of_knowledge(found[UNBOUNDED], "adaptive")
    accuracy = {**left, "adaptive": adaptive.value if adaptive else 1.0}
    unbounded = {"naive": free["pgd"], "adaptive": strongest.value if strongest else 1.0}
    return [*of_gradient(target, order.frames, order.labels), *signs, *of_rows(accuracy, unbounded, chance)]


def _curve(order: Order, found: Mapping[str, Found], clean: Shares) -> tuple[tuple[float, float], ...]:
    """Of the first frames, what the adaptive attack leaves at several bounds: (eps, share)."""
    if UNBOUNDED not in found:
        return ()
    first = slice(0, CURVE_FRAMES)
    strongest = list(found[_at(CURVE[0])])
    points = [(0.0, float(clean[first].mean()))]
    points.append((1.0, float(np.min([found[FILE][attack].judged[first] for attack in strongest], axis=0).mean())))
    for factor in CURVE:
        judged = np.min([outcome.judged for outcome in found[_at(factor)].values()], axis=0)
        points.append((factor, float(judged.mean())))
    return tuple((factor * order.threat.eps, share) for factor, share in sorted(points))


def _corruptions(target: Target, order: Order) -> dict[str, Shares]:
    """Of each corruption, [severities, frames], how often it is classified right."""

    def right(name: str, level: int) -> Shares:
        return rightness(target.shipped, corrupted(order.frames, name, level), order.labels, JUDGING[:3])

    return {name: np.stack([right(name, level) for level in SEVERITIES]) for name in CORRUPTIONS}


def _examples(order: Order, found: Found, clean: Shares) -> tuple[tuple[Pixels, Pixels], ...]:
    """Frames that were right and what an attack made of them, the first few that are wrong then."""
    pairs = []
    for outcome in found.values():
        wrong = np.flatnonzero((outcome.judged == 0) & (clean == 1))
        pairs += [
            (order.frames[at], outcome.found[at]) for at in wrong if (order.frames[at] != outcome.found[at]).any()
        ]
    return tuple(pairs[:: max(1, len(pairs) // EXAMPLES)][:EXAMPLES])


def _first(subject: Subject, count: int) -> Subject:
    return replace(subject, frames=subject.frames[:count], labels=subject.labels[:count])


def _at(factor: float) -> str:
    return f"at {factor} of the bound"


def _check(order: Order, classes: int, clean: Shares) -> None:
    beyond = np.flatnonzero((order.labels < 0) | (order.labels >= classes))
    if beyond.size:
        raise UserError(
            f"label {order.labels[beyond[0]]} of frame {beyond[0]} is out of range",
            f"{order.plan.recipe.name} has {classes} classes: labels go from 0 to {classes - 1}",
        )
    if clean.mean() <= 1.5 / classes:
        raise UserError(
            f"{order.plan.recipe.name} is right on {clean.mean():.1%} of the frames: no better than chance",
            "check the labels' order, and that the recipe's preprocessing is that of the training",
        )
