"""Steps that the model must be trained with are refused over any other, and built over one that says it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import edgemask
from edgemask.cli import app
from edgemask.errors import UserError
from edgemask.recipe import read_recipe

from .files import FOLDER, baked_answer
from .pictures import fashion

MODEL = FOLDER / "thermometer.onnx"
NEEDS = "thermometer needs a model that was trained with it"


def recipe_for(tmp_path: Path, trained_with: str = "") -> Path:
    path = edgemask.init(MODEL, tmp_path / "edgemask.toml", masks=["thermometer"])
    path.write_text(path.read_text().replace("[frame]", f"{trained_with}\n[frame]"))
    return path


def test_a_model_that_is_not_said_to_be_trained_with_it_is_refused(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    for ask in (
        lambda: edgemask.bake(MODEL, tmp_path / "out.onnx", masks=["thermometer"]),
        lambda: edgemask.bake(recipe=recipe),
        lambda: edgemask.build(recipe, "host", tmp_path / "built"),
    ):
        with pytest.raises(UserError, match=NEEDS) as error:
            ask()
        assert "--trained-with-mask" in (error.value.hint or "")
        assert 'trained_with = ["thermometer"]' in (error.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["edgemask.toml"]


def test_each_way_to_say_so_is_enough_and_answers_rightly(tmp_path: Path) -> None:
    silent = recipe_for(tmp_path)
    told = edgemask.bake(MODEL, masks=["thermometer"], trained_with_mask=True)
    assert edgemask.bake(recipe=silent, trained_with_mask=True).parity.passed
    assert edgemask.build(silent, "host", tmp_path / "a", trained_with_mask=True).parity.passed
    silent.unlink()
    stated = recipe_for(tmp_path, 'trained_with = ["thermometer"]')
    assert edgemask.build(stated, "host", tmp_path / "c").parity.passed
    answer = baked_answer(told.artefact.model, told.artefact.model.data, {"frame": np.stack(fashion())})
    np.testing.assert_array_equal(answer["logits"].argmax(-1), range(10))


def test_init_states_it(tmp_path: Path) -> None:
    path = edgemask.init(MODEL, tmp_path / "edgemask.toml", masks=["thermometer"], trained_with_mask=True)
    assert read_recipe(path).model.trained_with == ("thermometer",)
    assert edgemask.bake(recipe=path).parity.passed


def test_the_recipe_takes_only_kinds_that_are_trained_with(tmp_path: Path) -> None:
    for kind, problem in (
        ("jpeg", "value 'jpeg'; allowed: .*thermometer"),
        ("termometer", "did you mean 'thermometer'"),
    ):
        with pytest.raises(UserError, match=rf"\$\.model\.trained_with\[0\]: .*{problem}"):
            read_recipe(recipe_for(tmp_path, f'trained_with = ["{kind}"]'))
        (tmp_path / "edgemask.toml").unlink()


def test_the_command_line_says_so_too(tmp_path: Path) -> None:
    words = ["bake", str(MODEL), "-o", str(tmp_path / "out.onnx"), "--mask", "thermometer"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, UserError)
    assert CliRunner().invoke(app, [*words, "--trained-with-mask"]).exit_code == 0
    told = CliRunner().invoke(app, ["inspect", str(tmp_path / "out.onnx")])
    assert "thermometer" in told.output
