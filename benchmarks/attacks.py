"""PGD, Square and HopSkipJump through the audit's own path, against the Adversarial Robustness Toolbox (ART).

    python -m benchmarks.attacks [NETWORK ...] [--images 32] [--rounds 3] [--json]
    make bench-compare                    in an environment that has both

The same ONNX file, images, bound and steps; one thread; times are of the processor, the least of the rounds, taken in
turn. A row's limit is what the network alone took: for PGD its forward and backward passes, for the others the engine's
calls, of which each library made its own number. Accuracy is judged alike: rounded to whole grey levels, put into the
bound, answered by the file. Needs pip install 'edgemask[audit,art]', and fetches its networks by pip and npm.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.heavy.mnist import digits, lenet5, recipe_of

from edgemask.auditing.attacks import Attack, Target, planar, view
from edgemask.auditing.attacks.gradient import Pgd
from edgemask.auditing.attacks.queries import HopSkipJump, Square
from edgemask.auditing.setting import Setting, setting_of, without_masks
from edgemask.auditing.threat import FULL, Threat
from edgemask.baking import plan
from edgemask.listing import columns
from edgemask.recipe import read_recipe

ROOT = Path(__file__).parents[1]
STEPS, QUERIES, WALKS = 40, 500, 5
GRADIENT_EVALS = (50, 200)
"""Of HopSkipJump: how many frames its first estimate of a gradient asks for, and how many at most."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A network without masks, its images and the bound."""

    name: str
    setting: Setting
    threat: Threat
    frames: Array
    labels: Array


@dataclass
class Clock:
    """The time that a network took, and how many frames it was asked about."""

    seconds: float = 0.0
    frames: int = 0

    def timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, on this clock; its first argument holds the frames."""

        def taken(frames: Any, *rest: Any) -> Any:
            begun = time.process_time()
            made = run(frames, *rest)
            self.seconds += time.process_time() - begun
            self.frames += len(frames)
            return made

        return taken


@dataclass(frozen=True)
class Figure:
    """What one attack took and left."""

    seconds: float
    network: float
    asked: int
    left: float


def driver_id(count: int) -> Case:
    """The example, without its mask."""
    folder = ROOT / "build" / "faces"
    script = ROOT / "examples" / "driver-id" / "faces.py"
    subprocess.run([sys.executable, script, "--split", "test", "--out", folder], check=True, stdout=subprocess.DEVNULL)
    files = sorted(folder.glob("*.pgm"))[:: max(1, 120 // count)][:count]
    frames = np.stack([np.asarray(Image.open(file))[:, :, None] for file in files])
    labels = np.array([int(file.name[1:3]) - 1 for file in files])
    recipe = without_masks(plan(recipe=read_recipe(ROOT / "examples" / "driver-id" / "edgemask.toml"))).recipe
    setting = setting_of(replace(recipe, outputs=()), frames)
    return Case("driver-id", setting, Threat("linf", 8 / 255), frames, labels)


def mnist(count: int) -> Case:
    """Advertorch's LeNet5, trained cleanly."""
    with tempfile.TemporaryDirectory() as folder:
        lenet5("cln", Path(folder) / "cln.onnx")
        (Path(folder) / "edgemask.toml").write_text(recipe_of("cln.onnx"))
        frames, labels = digits(count)
        setting = setting_of(read_recipe(Path(folder) / "edgemask.toml"), frames)
    return Case("lenet5", setting, Threat("linf", 0.1), frames, labels)


NETWORKS = {"driver-id": driver_id, "lenet5": mnist}
OURS: dict[str, Attack] = {"PGD": Pgd(STEPS), "Square": Square(QUERIES), "HopSkipJump": HopSkipJump(WALKS)}


def ours(case: Case, name: str) -> Figure:
    """The audit's way, judging included."""
    target, clock = case.setting.target(case.threat), Clock()
    if name != "PGD":
        shipped: Any = target.shipped
        shipped._batch = clock.timed(shipped._batch)
    begun = time.process_time()
    found = OURS[name].run(target, case.frames, case.labels, 0)
    took = time.process_time() - begun
    if name == "PGD":
        clock = passes(target, case, STEPS + 1)
    return Figure(took, clock.seconds, clock.frames, accuracy(case, found))


def arts(case: Case, name: str) -> Figure:
    """ART's way, on PyTorch's twin of the network or on ONNX Runtime."""
    target, clock = case.setting.target(case.threat), Clock()
    attack = art_attack(case, target, name, clock)
    x = case.frames.transpose(0, 3, 1, 2).astype(np.float32) / FULL
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = attack.generate(x, np.eye(case.setting.classes)[case.labels])
    took = time.process_time() - begun
    if name == "PGD":
        clock = passes(target, case, STEPS)
    found = case.threat.project(case.frames, moved.transpose(0, 2, 3, 1) * FULL)
    return Figure(took, clock.seconds, clock.frames, accuracy(case, found))


def art_attack(case: Case, target: Target, name: str, clock: Clock) -> Any:
    """The same attack with the same settings."""
    from art.attacks.evasion import HopSkipJump as ArtHopSkipJump
    from art.attacks.evasion import ProjectedGradientDescent, SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier

    shape, eps, count = case.frames.shape, case.threat.eps, len(case.frames)
    sizes = (shape[3], *shape[1:3])
    if name == "PGD":
        model = PyTorchClassifier(
            view(target.defence, "exact", 1, 0),
            torch.nn.CrossEntropyLoss(),
            sizes,
            case.setting.classes,
            clip_values=(0, 1),
            device_type="cpu",
        )
        # foolbox's step: a thirtieth of the bound.
        settings = {"eps": eps, "eps_step": eps / 30, "max_iter": STEPS, "num_random_init": 1, "batch_size": count}
        return ProjectedGradientDescent(model, verbose=False, **settings)

    def ask(x: Array) -> Array:
        frames = np.rint(np.clip(x, 0, 1) * FULL).astype(np.uint8).transpose(0, 2, 3, 1)
        answer: Array = target.shipped.scores(np.ascontiguousarray(frames), 0)
        return answer

    shipped: Any = target.shipped
    shipped._batch = clock.timed(shipped._batch)
    model = BlackBoxClassifierNeuralNetwork(ask, sizes, case.setting.classes, clip_values=(0, 1))
    if name == "Square":
        return SquareAttack(model, eps=eps, max_iter=QUERIES, p_init=0.8, batch_size=count, verbose=False)
    first, most = GRADIENT_EVALS
    settings = {"norm": np.inf, "max_iter": WALKS, "init_eval": first, "max_eval": most}
    return ArtHopSkipJump(model, batch_size=64, verbose=False, **settings)


def passes(target: Target, case: Case, count: int) -> Clock:
    """So many forward and backward passes of the network alone."""
    assert target.defence
    x, labels = planar(case.frames), torch.from_numpy(case.labels)
    begun = time.process_time()
    for _ in range(count):
        x.requires_grad_()
        scores = target.defence.logits(x.permute(0, 2, 3, 1) * FULL, "exact", np.random.default_rng(0))
        torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), x)
    return Clock(time.process_time() - begun, count * len(x))


def accuracy(case: Case, found: Array) -> float:
    """The share that is still right."""
    return float(np.mean(case.setting.target(case.threat).shipped.labels(found, 0) == case.labels))


def measured(case: Case, rounds: int) -> list[dict[str, Any]]:
    """A row for each attack."""
    rows = []
    for name in OURS:
        runs = [(ours(case, name), arts(case, name)) for _ in range(rounds)]
        best = [min(side, key=lambda figure: figure.seconds) for side in zip(*runs, strict=True)]
        row = {"network": case.name, "attack": name, "images": len(case.labels)}
        rows.append(row | {side: vars(figure) for side, figure in zip(("ours", "art"), best, strict=True)})
        print(f"{case.name}: {name} measured", file=sys.stderr)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds, what of them the network took, frames asked about, accuracy left; ART's in the same order."""
    header = ("network", "attack", "ours s", "/limit", "asked", "left", "ART s", "/limit", "asked", "left", "ART/ours")
    return columns(header, map(_row, rows))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    cells = [row["network"], row["attack"]]
    for side in ("ours", "art"):
        found = row[side]
        over = found["seconds"] / found["network"]
        cells += [f"{found['seconds']:.2f}", f"{over:.2f}", str(found["asked"]), f"{found['left']:.1%}"]
    return (*cells, f"{row['art']['seconds'] / row['ours']['seconds']:.1f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{', '.join(NETWORKS)}; both if none is named")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [NETWORKS[name](options.images) for name in options.networks or NETWORKS]
    rows = [row for case in cases for row in measured(case, options.rounds)]
    print(json.dumps(rows, indent=2) if options.json else table(rows))


if __name__ == "__main__":
    main()
