"""Masks under audit on an example's model and test images: the tables of docs/results.md.

    for defence in none thermometer k-wta; do
        python examples/traffic-signs/train.py --data DIR --defence $defence
    done
    nice python -m benchmarks.audit_table traffic-signs --data DIR/gtsrb32_test.npz --images 500 --write docs/results.md

    python examples/driver-id/faces.py --split test -o build/faces
    nice python -m benchmarks.audit_table driver-id --data build/faces --write docs/results.md

Needs pip install 'edgemask[audit]'. Every row is what `edgemask audit` gives for the example's recipe with these masks
instead of its own. What was found is kept in build/audit-table: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edgemask import __version__
from edgemask.auditing.budgets import EFFORTS
from edgemask.auditing.finding import Budget
from edgemask.auditing.orders import Order, carry_out
from edgemask.auditing.processes import processes
from edgemask.auditing.threat import Norm, Threat, parse_eps
from edgemask.baking import plan
from edgemask.recipe import Recipe, read_recipe
from edgemask.steps import Mask, Rewrite, Wrap, parse_step
from edgemask_runtime.files import write_atomic

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
KEPT = ROOT / "build" / "audit-table"
SEED = 20260923
EPS = ["8/255", "4/255"]
HEADER = ("masks", "clean", "naive PGD", "adaptive", "Square", "corruptions", "worst of all", "gradient, robustness")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """An example with the chains that its table shows, as --mask takes them, joined by +.

    A chain that begins with a file's name has that model, of build/NAME, in place of the recipe's. `folder`: where the
    recipe lies, if not in the examples.
    """

    name: str
    chains: tuple[str, ...]
    folder: Path | None = None

    def recipe(self, chain: str) -> Recipe:
        """The example's recipe with this chain in place of its masks, and no outputs behind the scores."""
        made = read_recipe((self.folder or EXAMPLES / self.name) / "edgemask.toml")
        texts = [text for text in chain.split(" + ") if text != "none"]
        files = [text for text in texts if text.endswith(".onnx")]
        steps = [parse_step(text, ("mask", "model")) for text in texts if text not in files]
        entry = replace(made.model, trained_with=tuple(step.kind for step in steps if step.retrain))
        if files:
            entry = replace(entry, file=f"../../build/{self.name}/{files[0]}")
        before = tuple(step for step in steps if isinstance(step, Mask))
        coded = any(step.kind == "thermometer" for step in before)
        behind = () if coded else tuple(step for step in made.steps if not isinstance(step, Mask | Wrap))
        inside = tuple(step for step in steps if isinstance(step, Rewrite))
        return replace(made, model=entry, steps=(*before, *behind), rewrites=inside, outputs=(), thresholds={})


TRAFFIC_SIGNS = Case(
    "traffic-signs",
    (
        "none",
        "bit-depth:bits=3",
        "jpeg:quality=75",
        "jpeg:quality=25",
        "median",
        "low-pass",
        "wavelet-denoise",
        "ordered-dither",
        "palette",
        "jpeg:quality=75 + bit-depth:bits=4",
        "noise:strength=8",
        "random-resize-pad",
        "activation-pruning",
        "thermometer.onnx + thermometer:levels=16",
        "k-wta.onnx + k-wta:ratio=0.2",
    ),
)
DRIVER_ID = Case("driver-id", ("none", "jpeg:quality=75", "median", "bit-depth:bits=4"))
CASES = {case.name: case for case in (TRAFFIC_SIGNS, DRIVER_ID)}


def images_of(case: Case, data: Path, count: int | None) -> tuple[Array, Array]:
    """The labelled test images, or `count` of them, drawn with the seed and left in their order."""
    frames, labels = _faces(data) if data.is_dir() else _arrays(data)
    if count is None or count == len(labels):
        return frames, labels
    if count > len(labels):
        sys.exit(f"{data} has {len(labels)} images, {count} are asked for")
    picked = np.sort(np.random.default_rng(SEED).choice(len(labels), count, replace=False))
    return frames[picked], labels[picked]


@dataclass(frozen=True)
class How:
    """What all rows of a run have in common."""

    kept: Path = KEPT
    budget: Budget = "quick"
    norm: Norm = "linf"
    workers: int = 0


def audited(case: Case, chain: str, eps: str, frames: Array, labels: Array, how: How) -> Any:
    """The report of one row as plain data, from the folder of what is kept if it is there."""
    recipe, threat = case.recipe(chain), Threat(how.norm, parse_eps(eps))
    file = how.kept / f"{digest(recipe, threat, EFFORTS[how.budget], frames, labels)}.json"
    if file.is_file():
        return json.loads(file.read_text())
    how.kept.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    order = Order(plan(recipe=recipe), threat, frames, labels, how.kept, how.budget, runner=processes(how.workers))
    report = {**carry_out(order).to_json(), "chain": chain, "minutes": (time.monotonic() - begun) / 60}
    write_atomic(file, json.dumps(report).encode())
    return report


def table(reports: Iterable[Any]) -> str:
    """Markdown, a row for each report."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells(report)) + " |" for report in reports)])


def cells(report: Any) -> Sequence[str]:
    """One row: per cent right with the 95 % interval."""
    by_name = {row["attack"].split("-")[0]: row["left"] for row in report["rows"]}
    figures = (
        report["clean"],
        by_name.get("pgd"),
        report["adaptive"],
        by_name.get("square"),
        report["corrupted"],
        report["worst"],
    )
    verdict = report["verdict"]
    return [named(report["chain"]), *map(share, figures), f"{verdict['gradient']}, {verdict['robustness']}"]


def named(chain: str) -> str:
    """A chain as a cell of a table."""
    return chain if chain == "none" else " + ".join(f"`{part}`" for part in chain.split(" + "))


def share(figure: Any) -> str:
    """Per cent with the interval, as a cell of a table."""
    if figure is None:
        return "–"
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})"


def page(case: Case, reports: dict[str, list[Any]], command: str) -> str:
    """The tables of one example, one for each bound, with what they were made of."""
    first = next(iter(reports.values()))[0]
    parts = [f"`{command}`"]
    for eps, rows in reports.items():
        facts = f"L∞ {eps}, n = {rows[0]['n']}, budget {rows[0]['budget']}"
        parts += [f"**{case.name}, {facts}**", table(rows)]
    return "\n\n".join([*parts, f"On {first['engine']}, edgemask {__version__}."])


def written_into(file: Path, name: str, text: str) -> None:
    """Put the text between the file's marks of that name."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    head, _, rest = file.read_text().partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        sys.exit(f"{file} has no marks {begin.strip()} ... {end.strip()}")
    write_atomic(file, f"{head}{begin}\n{text}\n{end}{tail}".encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit row by row, and print the tables or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=CASES)
    parser.add_argument("--data", type=Path, required=True, help="an .npz with x and y, or the folder of faces")
    parser.add_argument("--images", type=int, help="how many, drawn with a fixed seed [all]")
    parser.add_argument("--eps", nargs="+", default=EPS)
    parser.add_argument("--budget", choices=get_args(Budget), default="quick")
    parser.add_argument("--masks", nargs="+", help="these chains alone, such as 'jpeg + bit-depth:bits=4'")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--write", type=Path, help="a page with marks for the tables, such as docs/results.md")
    asked = parser.parse_args(arguments)
    case = CASES[asked.example]
    frames, labels = images_of(case, asked.data, asked.images)
    how = How(asked.kept, asked.budget, workers=asked.workers)
    reports: dict[str, list[Any]] = {eps: [] for eps in asked.eps}
    for chain in asked.masks or case.chains:
        for eps in asked.eps:
            reports[eps].append(report := audited(case, chain, eps, frames, labels, how))
            print(eps, " | ".join(cells(report)), f"| {report['minutes']:.1f} min", file=sys.stderr, flush=True)
    given = [f"--images {asked.images}"] if asked.images else []
    given += [f"--eps {' '.join(asked.eps)}"] if asked.eps != EPS else []
    command = " ".join(["python -m benchmarks.audit_table", case.name, f"--data {asked.data.name}", *given])
    text = page(case, reports, command)
    if asked.write:
        written_into(asked.write, case.name, text)
    else:
        print(text)


def _faces(folder: Path) -> tuple[Array, Array]:
    sys.path.insert(0, str(EXAMPLES / "driver-id"))
    from accuracy import load

    frames, labels = load(folder)
    return frames, labels.astype(np.int64)


def _arrays(file: Path) -> tuple[Array, Array]:
    with np.load(file, allow_pickle=False) as data:
        return data["x"], data["y"].astype(np.int64)


def digest(recipe: Recipe, threat: Threat, attacks: object, frames: Array, labels: Array) -> str:
    """Of all that a row depends on."""
    parts = [repr(part).encode() for part in (replace(recipe, folder=Path()), threat, attacks, __version__)]
    data = [recipe.model_path.read_bytes(), frames.tobytes(), labels.tobytes()]
    return hashlib.sha256(b"\n".join([*parts, *data])).hexdigest()[:32]


if __name__ == "__main__":
    main()
