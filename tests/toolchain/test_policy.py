"""A recipe's policy: what it demands of an audit, and what a build does with the audit of this or another file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgemask
from edgemask import cli
from edgemask.auditing.finding import finding_of, read_finding
from edgemask.auditing.policy import PolicyEntry, PolicyUnmet
from edgemask.errors import UserError
from edgemask.recipe import parse_recipe
from edgemask_runtime.bundle import Bundle

from .files import FOLDER

RECIPE = """schema = 1
name = "garments"
[model]
file = "torch_nchw.onnx"
[frame]
width = 32
height = 32
colour = "rgb"
{policy}
[[steps]]
kind = "jpeg"
[[steps]]
kind = "normalise"
"""
POLICY = '[policy]\nrequire = "{}"\neps = "4/255"\n{}\n'
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A recipe with a policy, where we are."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(FOLDER / "torch_nchw.onnx", tmp_path)

    def written(require: str = "", more: str = "") -> Path:
        path = tmp_path / "edgemask.toml"
        path.write_text(RECIPE.format(policy=POLICY.format(require, more) if require else ""))
        return path

    return written


def report(sha256: str = "0" * 64, **changes: Any) -> dict[str, Any]:
    """What `edgemask audit` writes, with tables that no build reads."""
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    return {
        "schema": 1,
        "edgemask": "0.1.0",
        "name": "garments",
        "sha256": sha256,
        "engine": "onnxruntime 1.32.0",
        "budget": "standard",
        "threat": {"norm": "linf", "eps": 4 / 255},
        "bound_on": "the frame",
        "knows": ["naive", "adaptive"],
        "n": 100,
        "classes": 10,
        "clean": figure,
        "naive": figure,
        "adaptive": None,
        "worst": figure,
        "least": 0.5,
        "verdict": {"gradient": "shattered", "robustness": "EMPIRICAL", "reason": "every attack leaves 60 % right"},
        "no_gradient": None,
        "rows": [{"attack": "pgd-40"}],
        **changes,
    }


def sha256_of(recipe: Path) -> str:
    return edgemask.bake(recipe=recipe).artefact.model.sha256


def verdict(robustness: str) -> dict[str, Any]:
    return {"verdict": {"gradient": "useful", "robustness": robustness, "reason": "as it is"}}


@pytest.mark.parametrize(
    ("policy", "changes", "short"),
    [
        ({}, {}, []),
        ({}, verdict("BROKEN"), ["robustness is BROKEN, not EMPIRICAL"]),
        ({}, verdict("NOT SHOWN"), ["robustness is NOT SHOWN, not EMPIRICAL"]),
        ({"require": "not BROKEN"}, verdict("NOT SHOWN"), []),
        ({"require": "not BROKEN"}, verdict("BROKEN"), ["robustness is BROKEN, not not BROKEN"]),
        ({"eps": "8/255"}, {}, ["it is at L-inf 4/255, not at eps 8/255"]),
        ({"eps": "2/255"}, {}, []),
        ({"norm": "l2"}, {}, ["its norm is linf, not l2"]),
        ({"budget": "full"}, {}, ["its budget is standard, not full"]),
        ({"min_images": 101}, {}, ["it is of 100 images, not 101"]),
        ({"min_robust_accuracy": 0.61}, {}, ["only 60.0% are surely left, not 61.0%"]),
        ({}, {"worst": {"value": 0.5, "low": 0.4, "high": 0.6}}, ["only 40.0% are surely left, not 50.0%"]),
        ({"require": "not BROKEN"}, {"worst": {"value": 0.5, "low": 0.4, "high": 0.6}}, []),
    ],
)
def test_a_policy_says_all_that_falls_short(policy: dict[str, Any], changes: dict[str, Any], short: list[str]) -> None:
    entry = PolicyEntry(**{"require": "EMPIRICAL", "eps": "4/255", **policy})
    assert list(entry.unmet(finding_of(report(**changes), "audit.json"))) == short


def test_a_policy_is_read_strictly() -> None:
    text = RECIPE.format(policy='[policy]\nrequire = "secure"\neps = 8\nnorms = "l2"\nmin_images = 0')
    with pytest.raises(UserError) as caught:
        parse_recipe(text, Path("edgemask.toml"))
    assert caught.value.message.splitlines() == [
        "edgemask.toml: $.policy.norms: unknown key; allowed: require, eps, norm, min_robust_accuracy, budget, "
        "min_images; did you mean 'norm'?",
        'edgemask.toml: $.policy.require: value "secure"; allowed: EMPIRICAL, not BROKEN',
        "edgemask.toml: $.policy.eps: value 8; allowed: str",
        "edgemask.toml: $.policy.min_images: value 0; allowed: 1 or more",
    ]
    for given, missing in (('require = "EMPIRICAL"', "eps"), ('eps = "8/255"', "require")):
        with pytest.raises(UserError, match=rf"\$\.policy\.{missing}: missing"):
            parse_recipe(RECIPE.format(policy=f"[policy]\n{given}"), Path("edgemask.toml"))
    with pytest.raises(UserError, match=r'value "eight"; allowed: 8/255 or 0\.03'):
        parse_recipe(RECIPE.format(policy='[policy]\nrequire = "EMPIRICAL"\neps = "eight"'), Path("edgemask.toml"))


def test_an_audit_of_this_file_goes_into_the_evidence(make: Make, tmp_path: Path) -> None:
    recipe = make("EMPIRICAL")
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "audit.json").write_text(json.dumps(report(sha256_of(recipe))))
    built = edgemask.build(recipe, "host", "out", audits=[folder])
    evidence = Bundle.open(built.bundle).evidence["audit"]
    assert evidence == {name: value for name, value in report(sha256_of(recipe)).items() if name != "rows"}
    assert built.audit == read_finding(folder / "audit.json")
    told = built.report.read_text()
    assert "Robustness **EMPIRICAL AT L-inf 4/255**, gradient **shattered**" in told
    assert "| worst of all attacks on each image | 70.0% (60.0% to 80.0%) |" in told
    assert "No robustness was measured here" not in told


def test_the_usual_folder_is_looked_in(make: Make, tmp_path: Path) -> None:
    recipe = make("EMPIRICAL")
    usual = tmp_path / "build" / "audit"
    usual.mkdir(parents=True)
    (usual / "audit.json").write_text(json.dumps(report(sha256_of(recipe))))
    assert edgemask.build(recipe, "host").audit is not None
    (usual / "audit.json").write_text(json.dumps(report()))
    with pytest.raises(PolicyUnmet, match=r"\$\.policy demands an audit, and there is none of this very file"):
        edgemask.build(recipe, "host", "other")
    (usual / "audit.json").write_text("{}")
    with pytest.raises(PolicyUnmet, match="there is none of this very file"):
        edgemask.build(recipe, "host", "other")
    assert not (tmp_path / "other").exists()
    assert edgemask.build(make(), "host", "other").audit is None


def test_an_audit_of_another_file_is_refused(make: Make, tmp_path: Path) -> None:
    recipe = make()
    (tmp_path / "audit.json").write_text(json.dumps(report()))
    with pytest.raises(UserError, match="is an audit of another file: garments, sha256 0000"):
        edgemask.build(recipe, "host", "out", audits=["audit.json"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "audit.json").write_text(json.dumps(report(sha256_of(recipe), n="many", verdict={})))
    with pytest.raises(UserError, match=r"audit\.json: \$\.n: value \"many\"; allowed: int"):
        edgemask.build(recipe, "host", "out", audits=["audit.json"])


@pytest.mark.parametrize("robustness", ["EMPIRICAL", "BROKEN"])
def test_the_command_line_ends_as_the_policy_has_it(
    robustness: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make("not BROKEN")
    (tmp_path / "audit.json").write_text(json.dumps(report(sha256_of(recipe), **verdict(robustness))))
    words = ["edgemask", "build", str(recipe), "--target", "host", "--out", "out", "--audit", "audit.json"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    if robustness == "BROKEN":
        assert ended.value.code == 3
        assert "the audit does not meet $.policy: robustness is BROKEN, not not BROKEN" in told.err
        assert not (tmp_path / "out").exists()
    else:
        assert ended.value.code == 0
        assert "audit   gradient useful, robustness EMPIRICAL: 70.0% (60.0% to 80.0%) of 100 images" in told.out
