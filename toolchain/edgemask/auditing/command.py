"""`edgemask audit`: reads what it is given, carries the audit out and writes what it found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgemask.auditing.cluster import Cluster
from edgemask.auditing.finding import JSON, Budget
from edgemask.auditing.orders import Order, carry_out
from edgemask.auditing.outcome import Report
from edgemask.auditing.page import page
from edgemask.auditing.policy import PolicyEntry
from edgemask.auditing.processes import processes
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import Norm, Threat, parse_eps
from edgemask.auditing.verdict import MIN_ROBUST_ACCURACY
from edgemask.baking import Plan, plan
from edgemask.errors import UserError
from edgemask.metrics.data import Data
from edgemask.metrics.reading import read_data
from edgemask.recipe import Recipe, read_recipe
from edgemask.suggest import read_trained
from edgemask_runtime.files import write_atomic
from edgemask_runtime.formats import Pixels
from edgemask_runtime.keys import read_key

PAGE, KEPT = "audit.html", "kept"
USUAL = PolicyEntry("not BROKEN", "8/255")


@dataclass(frozen=True)
class Ask:
    """What the command line asks for; see `edgemask.audit`."""

    recipe: Path
    data: Path
    eps: str | None
    norm: Norm | None
    budget: Budget | None
    out: Path
    limit: int | None
    key: Path | None
    least: float | None
    compare: tuple[str, ...]
    workers: int
    ray: str | None
    resume: bool


def answer(ask: Ask, progress: Callable[[int, int], None]) -> Report:
    """Carry the audit out, and write what it found as JSON and as a page."""
    recipe = read_recipe(ask.recipe)
    policy = recipe.policy or USUAL
    threat = Threat(ask.norm or policy.norm, parse_eps(ask.eps or policy.eps))
    made = plan(recipe=recipe)
    others = {name: _other(recipe, model) for name, model in compared(ask.compare).items()}
    frames, labels, notes = _frames(read_data(ask.data, recipe.labels()), recipe, ask.limit)
    folder = _folder(ask.out)
    if not ask.resume:
        for file in (folder / KEPT).glob("*.npz"):
            file.unlink()
    order = Order(
        plan=made,
        threat=threat,
        frames=frames,
        labels=labels,
        kept=folder / KEPT,
        budget=ask.budget or policy.budget,
        key=_key(made, ask.key) if ask.key else None,
        least=_least(ask, policy),
        compare=others,
        runner=Cluster(ask.ray, ask.workers) if ask.ray else processes(ask.workers),
        progress=progress,
        notes=notes,
    )
    report = carry_out(order)
    if recipe.policy:
        report = replace(report, unmet=tuple(recipe.policy.unmet(report.finding())))
    write_atomic(folder / JSON, (json.dumps(report.to_json(), indent=2) + "\n").encode())
    write_atomic(folder / PAGE, page(report).encode())
    return report


def _least(ask: Ask, policy: PolicyEntry) -> float:
    stated = policy.min_robust_accuracy if ask.least is None else ask.least
    return MIN_ROBUST_ACCURACY if stated is None else stated


def _frames(data: Data, recipe: Recipe, limit: int | None) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """All images as the recipe's camera delivers them, their classes, and what a reader must know of both."""
    if data.task != "classification":
        raise UserError(f"{data.path} is for {data.task}", "the audit is of classification alone yet")
    samples, notes = data.limited(limit).samples, []
    if limit and len(samples) < limit:
        notes.append(f"{limit} images were asked for, and {data.path} has {len(samples)}: every figure is of these")
    pictures = [sample.frame(recipe.frame) for sample in samples]
    if resized := sum(picture.resized_from is not None for picture in pictures):
        size = f"{recipe.frame.width}x{recipe.frame.height}"
        notes.append(f"{resized} of {len(samples)} images have another size and were brought to {size} before all else")
    frames = np.stack([picture.pixels for picture in pictures])
    return frames, np.array([sample.truth for sample in samples], np.int64), tuple(notes)


def _other(recipe: Recipe, model: Path) -> Recipe:
    """The recipe's preprocessing around another trained model, without masks and outputs."""
    read_trained(model)
    steps = tuple(step for step in recipe.steps if step.role == "frame")
    entry = replace(recipe.model, file=str(model.resolve()))
    return replace(recipe, model=entry, steps=steps, rewrites=(), thresholds={})


def _folder(path: Path) -> Path:
    try:
        (path / KEPT).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made a folder: {error.strerror}", "-o names another one") from error
    return path


def compared(texts: Sequence[str]) -> dict[str, Path]:
    """`NAME=MODEL` as the command line gives them."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, model) in zip(texts, pairs, strict=True):
        if not (name and equals and model):
            raise UserError(f"--compare {text!r} is not NAME=MODEL", "for example: --compare adversarial=robust.onnx")
    return {name: Path(model) for name, _, model in pairs}


def _key(made: Plan, path: Path) -> bytes:
    if not made.chain.key_bytes:
        raise UserError(f"{made.recipe.name} takes no key", "leave --key out")
    return read_key(path, made.chain.key_bytes)
