"""Controls of the audit: models that hide their gradient and are not robust, masks with enough images, AutoAttack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgemask

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
import torch

from edgemask.auditing.attacks import planar, view
from edgemask.auditing.outcome import Report
from edgemask.auditing.setting import setting_of
from edgemask.auditing.threat import Threat, parse_eps
from edgemask.auditing.verdict import BLIND
from edgemask.masks.thermometer import Thermometer
from edgemask.ops.numpy import NumpyOps
from edgemask.recipe import read_recipe

from .mnist import digits, lenet5, recipe_of

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
LEVELS = 16


def audited(folder: Path, model: Path, n: int, *steps: str, more: str = "", **options: Any) -> Report:
    images, labels = digits(n)
    np.savez(folder / "digits.npz", x=images, y=labels)
    (folder / "edgemask.toml").write_text(recipe_of(model, *steps, more=more))
    asked = {"eps": "0.2", "out": folder / "audit", "workers": 1, **options}
    return edgemask.audit(folder / "edgemask.toml", folder / "digits.npz", **asked)


def seen(report: Report) -> set[str]:
    return {sign.name for sign in report.indicators if sign.flagged}


@pytest.mark.parametrize("killer", ["scaled", "rounded"])
@pytest.mark.parametrize("training", ["cln", "adv"])
def test_a_gradient_killer_is_flagged_and_never_called_robust(training: str, killer: str, tmp_path: Path) -> None:
    """What has no gradient to follow shows nothing, even where the network beneath is robust."""
    report = audited(tmp_path, lenet5(training, tmp_path / "net.onnx", killer), 32)
    assert report.verdict.gradient in ("vanishing", "shattered")
    assert {"zero gradient", BLIND} <= seen(report)
    assert report.verdict.robustness != "EMPIRICAL"
    if training == "adv":
        assert BLIND in report.verdict.reason


def test_three_bits_are_broken_once_there_are_enough_images(tmp_path: Path) -> None:
    """Auto-PGD leaves 16 of 256 digits, whose interval ends at 9.9 %; of 48 it leaves 3, and nothing can be said."""
    three = 'kind = "bit-depth"\nbits = 3'
    report = audited(tmp_path, lenet5("cln", tmp_path / "net.onnx"), 256, three)
    assert (report.verdict.gradient, report.verdict.robustness) == ("shattered", "BROKEN")
    assert report.worst.high < 0.1 < 0.9 < report.clean.low


def test_a_network_trained_on_a_thermometer_is_broken_behind_it(tmp_path: Path) -> None:
    """As Athalye et al. (2018) found of thermometer encoding; trained here on 8,000 digits."""
    steps = f'kind = "thermometer"\nlevels = {LEVELS}\n'
    trained = 'trained_with = ["thermometer"]'
    report = audited(tmp_path, on_thermometer(tmp_path / "net.onnx"), 64, steps, trained)
    assert report.clean.value > 0.9
    assert (report.verdict.gradient, report.verdict.robustness) == ("shattered", "BROKEN")
    assert report.naive is not None
    assert report.adaptive is not None
    assert report.naive.value - report.adaptive.value > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("training", "eps"), [("cln", "25/255"), ("adv", "76/255")])
def test_no_figure_lies_above_autoattacks_standard_or_pgd_20(training: str, eps: str, tmp_path: Path) -> None:
    """On the same 100 images at a bound of whole grey levels; one image, 1 %, may differ."""
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD
    from pyautoattack import AutoAttack

    report = audited(tmp_path, lenet5(training, tmp_path / "net.onnx"), 100, eps=eps, budget="standard", workers=2)
    images, labels = digits(100)
    threat = Threat("linf", parse_eps(eps))
    target = setting_of(read_recipe(tmp_path / "edgemask.toml"), images).target(threat)
    x, y, model = planar(images), torch.from_numpy(labels), view(target.defence, "exact", 1, 0)
    peer = AutoAttack(model, norm="Linf", eps=threat.eps, version="standard", device="cpu")
    moved = {"AutoAttack": peer.run_standard_evaluation(x, y)[0]}
    whole = PyTorchModel(model, bounds=(0, 1), device="cpu")
    moved["PGD-20"] = LinfPGD(steps=20)(whole, x, y, epsilons=threat.eps)[1]
    with torch.no_grad():
        left = {name: float((model(found).argmax(1) == y).double().mean()) for name, found in moved.items()}
    print(training, eps, left, report.worst)
    assert left["AutoAttack"] <= left["PGD-20"]
    assert report.worst.value <= left["AutoAttack"] + 0.01


def on_thermometer(out: Path) -> Path:
    """A small network on thermometer codes, trained here: image [N, 16, 28, 28] to logits."""
    images, labels = digits(8000, "train")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(LEVELS, 16, 3, 2, 1), torch.nn.Conv2d(16, 32, 3, 2, 1), torch.nn.Linear(32 * 49, 10)]
    first, second, last = layers
    relu = torch.nn.functional.relu
    codes = torch.from_numpy(Thermometer(LEVELS).build(NumpyOps(), images, None).transpose(0, 3, 1, 2).copy()).float()
    steps = torch.optim.Adam([weight for layer in layers for weight in layer.parameters()], 2e-3)
    for _ in range(3):
        for part in torch.randperm(len(codes)).split(64):
            scores = last(relu(second(relu(first(codes[part])))).flatten(1))
            loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)[part])
            steps.zero_grad()
            loss.backward()
            steps.step()
    out.write_bytes(as_onnx(layers))
    return out


def as_onnx(layers: list[Any]) -> bytes:
    nodes, constants, x = [], [], "image"
    for number, layer in enumerate(layers):
        names = [f"weight{number}", f"bias{number}"]
        for name, value in zip(names, (layer.weight, layer.bias), strict=True):
            constants.append(numpy_helper.from_array(value.detach().numpy(), name))
        if number < 2:
            size = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
            nodes.append(helper.make_node("Conv", [x, *names], [f"c{number}"], **size))
            nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
            x = f"r{number}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "weight2", "bias2"], ["logits"], transB=1))
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", LEVELS, 28, 28]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10]),
    ]
    graph = helper.make_graph(nodes, "thermometer", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", 18)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return made
