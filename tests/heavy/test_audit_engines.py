"""The audit of TFLite and of int8: followed on PyTorch where there is a way, asked on its own engine in any case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toolchain.pictures import fashion

import edgemask
from edgemask import baking
from edgemask.conversion import lanes
from edgemask_runtime.engines import open_engine

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
import torch

from edgemask.auditing.attacks import planar, view
from edgemask.auditing.outcome import Report
from edgemask.auditing.setting import CONVERTED, ROUNDED, setting_of
from edgemask.auditing.threat import Threat
from edgemask.auditing.twin import gradient
from edgemask.recipe import read_recipe

from .mnist import digits, lenet5

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.audit,
    pytest.mark.filterwarnings("ignore:pkg_resources"),
    pytest.mark.usefixtures("fresh_cache"),
]
MODELS = Path(__file__).parents[1] / "models"
GARMENTS = np.stack(fashion())
RECIPE = """schema = 1
name = "net"
[model]
file = "{model}"
[frame]
width = {side}
height = {side}
colour = "{colour}"
{more}
"""
JPEG, NORMALISE = '[[steps]]\nkind = "jpeg"\n', '[[steps]]\nkind = "normalise"\n'


def written(folder: Path, model: str, *more: str, side: int = 32, colour: str = "rgb") -> Path:
    path = folder / "edgemask.toml"
    path.write_text(RECIPE.format(model=MODELS / model, more="".join(more), side=side, colour=colour))
    return path


def audited(folder: Path, model: str, *more: str, **options: Any) -> Report:
    np.savez(folder / "garments.npz", x=GARMENTS, y=np.arange(10))
    asked = {"eps": "8/255", "out": folder / "audit", "workers": 1, **options}
    return edgemask.audit(written(folder, model, *more), folder / "garments.npz", **asked)


def test_the_slope_of_a_tflite_file_is_that_of_litert(tmp_path: Path) -> None:
    """Along random ways, by central differences of the file's own answers on its own engine."""
    recipe = written(tmp_path, "keras_float.tflite", NORMALISE)
    target = setting_of(read_recipe(recipe), GARMENTS).target(Threat("linf", 8 / 255))
    x, engine = planar(GARMENTS).requires_grad_(), open_engine("litert", (MODELS / "keras_float.tflite").read_bytes())
    best = view(target.defence, "exact", 1, 0)(x)[torch.arange(10), torch.arange(10)]
    slopes = gradient(best.sum(), x).numpy()

    def logarithms(pixels: Any) -> Any:
        rows = [engine.run({"image": row[np.newaxis]})["probabilities"][0] for row in pixels.astype(np.float32)]
        return np.log(np.stack(rows)[np.arange(10), np.arange(10)])

    source, step = np.random.default_rng(0), 1e-3
    for _ in range(5):
        way = source.standard_normal(GARMENTS.shape)
        real = GARMENTS / 255
        measured = (logarithms(real + step * way) - logarithms(real - step * way)) / (2 * step)
        followed = (slopes * way.transpose(0, 3, 1, 2)).sum((1, 2, 3))
        assert np.corrcoef(measured, followed)[0, 1] > 0.98


def test_a_tflite_file_is_broken_behind_its_mask(tmp_path: Path) -> None:
    report = audited(tmp_path, "keras_float.tflite", JPEG, NORMALISE)
    assert report.no_gradient is None
    assert report.notes == (CONVERTED,)
    assert report.engine.startswith("litert")
    assert report.verdict.gradient == "shattered"
    assert report.naive is not None
    assert report.adaptive is not None
    assert (report.naive.value, report.adaptive.value) == (1.0, 0.0)


def test_whole_numbers_into_an_int8_file_cut_the_gradient_as_a_mask_does(tmp_path: Path) -> None:
    report = audited(tmp_path, "keras_int8.tflite")
    assert report.notes == (CONVERTED, ROUNDED)
    assert report.verdict.gradient == "shattered"
    assert report.adaptive is not None
    assert report.adaptive.value == 0.0
    assert "straight through" in (tmp_path / "audit" / "audit.html").read_text()


@pytest.mark.parametrize("model", ["keras_int8.tflite", "qdq.onnx"])
def test_what_asks_the_engine_needs_no_gradient(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tf2onnx a TFLite file is a black box, and no verdict above NOT SHOWN is given; the reason is there."""
    monkeypatch.setattr(lanes, "version_of", lambda names: None if "tf2onnx" in names else "1")
    scaled = NORMALISE + "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n" if "qdq" in model else ""
    report = audited(tmp_path, model, scaled, eps="16/255", budget="standard", min_robust_accuracy=0.0)
    left = {row.attack.partition("-")[0]: row.left.value for row in report.rows}
    assert left["square"] <= 0.5 < left["uniform"]
    assert left["hop"] <= left["uniform"]
    if model == "qdq.onnx":
        assert report.notes == (ROUNDED,)
        assert report.verdict.gradient == "useful"
        return
    assert report.no_gradient is not None
    assert report.no_gradient.startswith("keras_int8.tflite does not become ONNX: tflite to onnx needs tf2onnx")
    assert "pip install 'edgemask[tensorflow]'" in report.no_gradient
    assert (report.verdict.gradient, report.verdict.robustness) == ("unknown", "NOT SHOWN")


def test_a_recipe_at_int8_is_quantised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lenet5("cln", tmp_path / "net.onnx")
    images, labels = digits(64)
    np.savez(tmp_path / "digits.npz", x=images[:32], y=labels[:32])
    np.savez(tmp_path / "others.npz", x=images[32:], y=labels[32:])
    precision = '[precision]\ntype = "int8"\ncalibrate = "others.npz"\n'
    path = written(tmp_path, str(tmp_path / "net.onnx"), precision, JPEG, NORMALISE, side=28, colour="gray")
    quantise, times = baking.at_precision, []

    def counted(*given: Any) -> Any:
        times.append(1)
        return quantise(*given)

    monkeypatch.setattr(baking, "at_precision", counted)
    report = edgemask.audit(path, tmp_path / "digits.npz", eps="0.2", out=tmp_path / "audit", workers=1)
    assert len(times) == 1
    assert report.notes == (ROUNDED,)
    assert report.sha256 == edgemask.bake(recipe=path).artefact.model.sha256
    assert report.adaptive is not None
    assert report.adaptive.value < 0.1
