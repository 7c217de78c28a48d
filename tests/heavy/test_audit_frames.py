"""The audit of raw frames: the bound lies on the first picture, and what is found there is true of the whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toolchain.pictures import fashion

import edgemask
from edgemask_runtime.engines import open_engine
from edgemask_runtime.formats import Format, encoded

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.campaign import Subject, Task, execute_here
from edgemask.auditing.setting import scene_of
from edgemask.auditing.threat import Threat
from edgemask.baking import bake_plan, plan

from .mnist import digits, lenet5

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
N = 16
RECIPE = """schema = 1
name = "raw"
[model]
file = "{model}"
[frame]
width = {side}
height = {side}
colour = "{colour}"
{more}
[[steps]]
kind = "{decode}"
[[steps]]
kind = "jpeg"
[[steps]]
kind = "normalise"
"""


def recipe(folder: Path, **values: Any) -> Path:
    path = folder / "edgemask.toml"
    path.write_text(RECIPE.format(**{"side": 28, "more": "", **values}))
    return path


def test_what_is_found_on_luma_fools_the_whole_file(tmp_path: Path) -> None:
    """Of gray in the full range any picture has a frame that decodes to it: the whole file is asked, too."""
    lenet5("cln", tmp_path / "net.onnx")
    images, labels = digits(N)
    camera = Format(28, 28, "nv12", None, "bt601", "full")
    frames = np.stack([encoded(np.repeat(image, 3, 2), camera) for image in images])
    path = recipe(tmp_path, model="net.onnx", colour="nv12", more='range = "full"', decode="gray")
    made = plan(recipe=path)
    scene = scene_of(made, frames)
    np.testing.assert_array_equal(scene.frames, images)
    assert scene.bound_on == "the picture that step 1 (gray) gives, 28×28×1 uint8 gray"
    found = execute_here(Subject(scene.file, Threat("linf", 0.2), scene.frames, labels), Task(Apgd(), 0, N))
    again = np.stack([encoded(np.repeat(image, 3, 2), camera) for image in found.found])
    whole = open_engine("onnxruntime", bake_plan(made).artefact.model.data)
    answers = whole.run({"frame": again})["logits"].argmax(1)
    assert (found.judged == (answers == labels)).all()
    assert found.judged.mean() < 0.2


@pytest.mark.parametrize("colour", ["nv12", "yuyv", "i420", "rgba"])
def test_an_audit_of_raw_frames_names_where_its_bound_lies(colour: str, tmp_path: Path) -> None:
    model = Path(__file__).parents[1] / "models" / "torch_nchw.onnx"
    np.savez(tmp_path / "garments.npz", x=np.stack(fashion()), y=np.arange(10))
    path = recipe(tmp_path, model=model, side=32, colour=colour, decode="rgb")
    report = edgemask.audit(path, tmp_path / "garments.npz", eps="16/255", out=tmp_path, workers=1)
    assert "step 1 (rgb)" in report.bound_on
    assert report.sha256 == edgemask.bake(recipe=path).artefact.model.sha256
    assert report.adaptive is not None
    assert report.adaptive.value < 0.2
