"""The audit against networks whose robustness is known: advertorch's LeNet5s, trained cleanly and adversarially."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toolchain.pictures import fashion

import edgemask
from edgemask.errors import UserError

torch: Any = pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from edgemask.auditing.attacks.auto import Apgd  # noqa: E402
from edgemask.auditing.campaign import Subject, Task, execute_here  # noqa: E402
from edgemask.auditing.corruptions import CORRUPTIONS, corrupted  # noqa: E402
from edgemask.auditing.indicators import Indicator  # noqa: E402
from edgemask.auditing.orders import interval_of  # noqa: E402
from edgemask.auditing.outcome import Report  # noqa: E402
from edgemask.auditing.policy import PolicyUnmet  # noqa: E402
from edgemask.auditing.setting import setting_of  # noqa: E402
from edgemask.auditing.threat import Threat, parse_eps  # noqa: E402
from edgemask.auditing.verdict import judge  # noqa: E402
from edgemask.recipe import read_recipe  # noqa: E402

from .mnist import digits, lenet5, recipe_of  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
N, EPS = 48, "0.2"
FRAMES = arrays(np.uint8, (2, 5, 4, 3))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    images, labels = digits(N)
    np.savez(folder / "digits.npz", x=images, y=labels)
    for training in ("cln", "adv"):
        lenet5(training, folder / f"{training}.onnx")
    return folder


def recipe(home: Path, training: str, mask: str = "") -> Path:
    path = home / f"{training}-{abs(hash(mask))}.toml"
    path.write_text(recipe_of(f"{training}.onnx", *([mask] if mask else [])))
    return path


def audited(home: Path, training: str, mask: str = "", **options: Any) -> Report:
    asked = {"eps": EPS, "out": home / "audit", "workers": 1, **options}
    return edgemask.audit(recipe(home, training, mask), home / "digits.npz", **asked)


def seen(report: Report) -> set[str]:
    return {sign.name for sign in report.indicators if sign.flagged}


def test_a_network_that_was_never_hardened_is_broken(home: Path) -> None:
    report = audited(home, "cln")
    assert (report.verdict.gradient, report.verdict.robustness) == ("useful", "BROKEN")
    assert not seen(report)


def test_adversarial_training_is_empirically_robust_and_not_flagged(home: Path) -> None:
    report = audited(home, "adv")
    assert (report.verdict.gradient, report.verdict.robustness) == ("useful", "EMPIRICAL")
    assert report.worst.value > 0.85
    assert not seen(report)


@pytest.mark.parametrize(
    ("mask", "verdicts"),
    [('kind = "jpeg"', {"BROKEN"}), ('kind = "bit-depth"\nbits = 3', {"BROKEN", "NOT SHOWN"})],
    ids=["jpeg", "3 bits"],
)
def test_a_mask_shatters_the_gradient_and_saves_nothing(home: Path, mask: str, verdicts: set[str]) -> None:
    """Behind 3 bits one or two of 48 digits stay right under every attack here, too many for so few to say BROKEN."""
    report = audited(home, "cln", mask)
    assert report.verdict.gradient == "shattered"
    assert report.verdict.robustness in verdicts
    assert {"zero gradient", "gap between naive and adaptive"} <= seen(report)
    assert report.naive is not None
    assert report.adaptive is not None
    assert report.naive.value > 0.9
    assert report.adaptive.value < 0.1


def test_adversarial_training_stays_robust_behind_a_mask(home: Path) -> None:
    report = audited(home, "adv", 'kind = "jpeg"')
    assert (report.verdict.gradient, report.verdict.robustness) == ("shattered", "EMPIRICAL")


def test_no_figure_lies_above_autoattacks(home: Path) -> None:
    from pyautoattack import AutoAttack

    report = audited(home, "cln", eps="0.1")
    images, labels = digits(N)
    from edgemask.auditing.attacks import planar, view

    target = setting_of(read_recipe(recipe(home, "cln")), images).target(Threat("linf", 0.1))
    peer = AutoAttack(view(target.defence, "exact", 1, 0), norm="Linf", eps=0.1, version="custom", device="cpu")
    peer.attacks_to_run = ["apgd-ce", "apgd-dlr"]
    peer.apgd.n_restarts = 1
    moved, _ = peer.run_standard_evaluation(planar(images), torch.from_numpy(labels))
    found = target.threat.project(images, moved.permute(0, 2, 3, 1).numpy() * 255)
    left = float(np.mean(target.shipped.labels(found, 0) == labels))
    assert report.worst.value <= left + 0.05


def test_what_was_found_is_kept_and_the_same_again(home: Path, tmp_path: Path) -> None:
    first = audited(home, "cln", out=tmp_path, limit=16)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}
    again = audited(home, "cln", out=tmp_path, limit=16)
    assert kept == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}
    assert again.to_json() == first.to_json()


def test_a_task_gives_the_same_in_another_process(home: Path, tmp_path: Path) -> None:
    """Two workers find what one finds."""
    one = audited(home, "cln", 'kind = "noise"', out=tmp_path / "one", limit=16)
    two = audited(home, "cln", 'kind = "noise"', out=tmp_path / "two", limit=16, workers=2)
    assert [row.left for row in one.rows] == [row.left for row in two.rows]
    assert one.verdict == two.verdict


def test_the_files_say_what_the_report_says(home: Path) -> None:
    report = audited(home, "cln", 'kind = "jpeg"')
    written = json.loads((home / "audit" / "audit.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    page = (home / "audit" / "audit.html").read_text()
    assert "robustness: BROKEN" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_policy_settles_the_audit_and_ends_the_command(home: Path, tmp_path: Path) -> None:
    """The audit takes eps and the rest from the recipe; a build then finds what it wrote."""
    demanding = tmp_path / "edgemask.toml"
    policy = '[policy]\nrequire = "not BROKEN"\neps = "0.2"\nmin_robust_accuracy = 0.4\n[frame]'
    shutil.copy(home / "cln.onnx", tmp_path)
    demanding.write_text(recipe(home, "cln").read_text().replace("[frame]", policy))
    words = ["audit", str(demanding), "--data", str(home / "digits.npz"), "--workers", "1"]
    ended = subprocess.run([sys.executable, "-m", "edgemask", *words], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert "robustness BROKEN" in ended.stdout
    assert "the audit does not meet $.policy: robustness is BROKEN, not not BROKEN" in ended.stderr
    written = json.loads((tmp_path / "build" / "audit" / "audit.json").read_text())
    assert (written["threat"], written["least"]) == ({"norm": "linf", "eps": 0.2}, 0.4)
    assert "policy is not met" in (tmp_path / "build" / "audit" / "audit.html").read_text()
    with pytest.raises(PolicyUnmet, match="robustness is BROKEN"):
        edgemask.build(demanding, "host", tmp_path / "out", audits=[tmp_path / "build" / "audit"])
    demanding.write_text(recipe(home, "cln").read_text())
    built = edgemask.build(demanding, "host", tmp_path / "out", audits=[tmp_path / "build" / "audit"])
    assert built.audit is not None
    assert built.audit.verdict.robustness == "BROKEN"


def test_examples_keep_the_bound_in_whole_levels(home: Path) -> None:
    images, labels = digits(8)
    setting = setting_of(read_recipe(recipe(home, "cln", 'kind = "jpeg"')), images)
    subject = Subject(setting, Threat("l2", 1.5), images, labels)
    found = execute_here(subject, Task(Apgd(), 0, 8)).found
    assert found.dtype == np.uint8
    assert subject.threat.holds(images, found).all()
    assert (found != images).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": "eight"}, "--eps 'eight' is no number"),
        ({"norm": "linff"}, "norm.*linff"),
        ({"budget": "fast"}, "budget.*fast"),
        ({"compare": ["robust.onnx"]}, "is not NAME=MODEL"),
        ({"key": "key.bin"}, "takes no key"),
    ],
)
def test_a_wrong_option_is_one_error(home: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        audited(home, "cln", **options)


def test_labels_out_of_range_and_models_below_chance_are_refused(home: Path, tmp_path: Path) -> None:
    images, labels = digits(N)
    np.savez(tmp_path / "beyond.npz", x=images, y=np.where(labels == 7, 10, labels))
    np.savez(tmp_path / "shuffled.npz", x=images, y=(labels + 1) % 10)
    with pytest.raises(UserError, match="label 10 of frame 0"):
        edgemask.audit(recipe(home, "cln"), tmp_path / "beyond.npz", out=tmp_path)
    with pytest.raises(UserError, match="no better than chance"):
        edgemask.audit(recipe(home, "cln"), tmp_path / "shuffled.npz", out=tmp_path)


@settings(max_examples=100, deadline=None)
@given(FRAMES, arrays(np.float32, (2, 5, 4, 3), elements=st.floats(-500, 500, width=32)), st.floats(0.001, 2))
def test_projection_stays_within_the_bound(frames: Any, moved: Any, eps: float) -> None:
    for norm in ("linf", "l2"):
        threat = Threat(norm, eps)
        found = threat.project(frames, moved)
        assert threat.holds(frames, found).all()
        np.testing.assert_array_equal(threat.project(frames, found.astype(np.float32)), found)


def test_a_bound_is_a_fraction_or_a_number() -> None:
    assert parse_eps("8/255") == pytest.approx(8 / 255)
    assert parse_eps("0.03") == pytest.approx(0.03)
    for text in ("0", "-1", "1/0", "x"):
        with pytest.raises(UserError):
            parse_eps(text)


def test_an_interval_of_shares_lies_between_none_and_all() -> None:
    shares = np.array([*[0.0] * 31, 0.1])
    low, high = interval_of(shares).low, interval_of(shares).high
    assert 0 <= low < shares.mean() < high
    assert interval_of(1 - shares).high <= 1


def test_the_verdict_follows_its_bounds() -> None:
    unexplained = Indicator("asking for scores beats the adaptive attack", 0.3, 0.05, True, "")
    words = [
        judge([], (0.0, 0.09), 0.1, has_gradient=True, is_random=False).robustness,
        judge([], (0.0, 0.11), 0.1, has_gradient=True, is_random=False).robustness,
        judge([], (0.6, 0.9), 0.1, has_gradient=True, is_random=False).robustness,
        judge([], (0.6, 0.9), 0.1, has_gradient=False, is_random=False).robustness,
        judge([unexplained], (0.6, 0.9), 0.1, has_gradient=True, is_random=False).robustness,
        judge([unexplained], (0.0, 0.05), 0.1, has_gradient=True, is_random=False).robustness,
    ]
    assert words == ["BROKEN", "NOT SHOWN", "EMPIRICAL", "NOT SHOWN", "NOT SHOWN", "BROKEN"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity(name: str) -> None:
    frames = np.repeat(digits(8)[0], 3, axis=3)
    apart = [np.abs(corrupted(frames, name, level).astype(int) - frames).mean() for level in range(5)]
    assert all(a <= b for a, b in itertools.pairwise(apart))
    assert apart[0] > 0


GARMENTS = np.stack(fashion())
MODELS = Path(__file__).parents[1] / "models"
KEY = hashlib.shake_128(b"block_shuffle.onnx: a test key, no secret").digest(96)
GARMENT = """schema = 1
name = "garments"
[model]
file = "{model}"
trained_with = ["thermometer", "block-shuffle", "k-wta"]
[frame]
width = 32
height = 32
colour = "rgb"
"""
SCALED = """[[steps]]
kind = "normalise"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
NETS = {
    "thermometer": ("thermometer", '[[steps]]\nkind = "thermometer"\nlevels = 16\n', ""),
    "block-shuffle": ("block_shuffle", '[[steps]]\nkind = "block-shuffle"\n', SCALED),
    "k-wta": ("k_wta", "", SCALED + '[[rewrites]]\nkind = "k-wta"\n'),
    "activation-pruning": ("torch_nchw", "", SCALED + '[[rewrites]]\nkind = "activation-pruning"\nsamples = 4.0\n'),
    "noise": ("torch_nchw", '[[steps]]\nkind = "noise"\n', SCALED),
}

GRADIENTS = {
    "thermometer": "shattered",
    "block-shuffle": "useful",
    "k-wta": "shattered",
    "activation-pruning": "stochastic",
    "noise": "stochastic",
}


@pytest.mark.parametrize("kind", NETS)
def test_masks_of_every_family_are_followed(kind: str, tmp_path: Path) -> None:
    """Ten garments say little of a model; here they show that the twin and every attack run, key and draws included."""
    model, before, after = NETS[kind]
    (tmp_path / "edgemask.toml").write_text(GARMENT.format(model=MODELS / f"{model}.onnx") + before + after)
    np.savez(tmp_path / "garments.npz", x=GARMENTS, y=np.arange(10))
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    key = tmp_path / "key" if kind == "block-shuffle" else None
    report = edgemask.audit(tmp_path / "edgemask.toml", tmp_path / "garments.npz", eps="16/255", out=tmp_path, key=key)
    assert report.no_gradient is None
    assert report.verdict.gradient == GRADIENTS[kind]
    assert report.clean.value > 0.7
    assert report.adaptive is not None
    assert report.adaptive.value < 0.2
    assert report.verdict.robustness != "EMPIRICAL"
