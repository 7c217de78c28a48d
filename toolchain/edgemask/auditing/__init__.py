"""The audit, as the command and the Python API offer it; its packages are loaded when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from edgemask.errors import UserError, unknown

if TYPE_CHECKING:
    from edgemask.auditing.outcome import Report

NEEDED = ("torch", "foolbox", "pyautoattack", "PIL")


def audit(
    recipe: str | Path,
    data: str | Path,
    *,
    eps: str | None = None,
    norm: str | None = None,
    budget: str | None = None,
    out: str | Path = "build/audit",
    limit: int | None = None,
    key: str | Path | None = None,
    min_robust_accuracy: float | None = None,
    compare: Sequence[str] = (),
    workers: int = 0,
    ray: str | None = None,
    resume: bool = True,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Attack the file that `recipe` makes, on the labelled images of `data`, and write audit.json and audit.html.

    Nothing of it says that a model is secure. `eps` is on the frame, in shares of its range. What is left out is as the
    recipe's policy has it, else 8/255, linf, quick and 0.5; `Report.require_policy` judges. What each attack found is
    kept in `out`, by a digest of all it depends on: with `resume` it is not made again. `compare`: other trained models
    as NAME=MODEL, behind the recipe's preprocessing and without its masks. `ray`: the address of a Ray cluster that
    runs the attacks, or "local"; a cluster runs code, so it must be your own. UserError: packages that are missing,
    data that does not fit, a model that is no classifier or no better than chance.
    """
    _require()
    from edgemask.auditing.command import Ask, answer
    from edgemask.auditing.finding import Budget
    from edgemask.auditing.threat import Norm

    for what, value, allowed in (("norm", norm, get_args(Norm)), ("budget", budget, get_args(Budget))):
        if value is not None and value not in allowed:
            raise unknown(what, value, allowed)
    ask = Ask(
        recipe=Path(recipe),
        data=Path(data),
        eps=eps,
        norm=cast(Norm | None, norm),
        budget=cast(Budget | None, budget),
        out=Path(out),
        limit=limit,
        key=Path(key) if key is not None else None,
        least=min_robust_accuracy,
        compare=tuple(compare),
        workers=workers,
        ray=ray,
        resume=resume,
    )
    return answer(ask, progress)


def _require() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the audit needs {', '.join(missing)}", "pip install 'edgemask[audit]'")
