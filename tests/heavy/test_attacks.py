"""Every attack on a network whose robustness is known: its bound, its norms, its losses, and the worst of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
import torch

from edgemask.auditing.attacks import Attack, planar, view
from edgemask.auditing.attacks.auto import Apgd, Fab, margin
from edgemask.auditing.attacks.gradient import Fgsm, Pgd
from edgemask.auditing.attacks.queries import HopSkipJump, Square, UniformNoise
from edgemask.auditing.attacks.transfer import Transfer
from edgemask.auditing.budgets import attacks_for
from edgemask.auditing.orders import _worst
from edgemask.auditing.setting import Setting, setting_of
from edgemask.auditing.threat import Norm, Threat
from edgemask.auditing.work import Job, Outcome, execute
from edgemask.baking import plan
from edgemask.recipe import read_recipe

from .mnist import digits, lenet5

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
RECIPE = """schema = 1
name = "lenet5"
[model]
file = "{training}.onnx"
[frame]
width = 28
height = 28
colour = "gray"
{steps}
[[steps]]
kind = "normalise"
"""
ATTACKS: tuple[Attack, ...] = (
    UniformNoise(),
    Fgsm(),
    Pgd(10),
    Apgd("ce", steps=10),
    Apgd("dlr", "surrogate", steps=10),
    Apgd("margin", steps=10),
    Apgd("dlr-targeted", steps=5),
    Fab(steps=5),
    Transfer(10),
    Square(100),
    HopSkipJump(2),
)
JPEG = '[[steps]]\nkind = "jpeg"'
NOISE = '[[steps]]\nkind = "noise"'
LOADED = settings(deadline=None, suppress_health_check=list(HealthCheck))
SHARES = arrays(np.float64, (3, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def made(folder: Path, training: str, steps: str = "") -> Path:
    lenet5(training, folder / f"{training}.onnx")
    (folder / "edgemask.toml").write_text(RECIPE.format(training=training, steps=steps))
    return folder / "edgemask.toml"


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(read_recipe(made(tmp_path_factory.mktemp("masked"), "cln", JPEG)), digits(8)[0])


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(read_recipe(made(tmp_path_factory.mktemp("hardened"), "adv")), digits(8)[0])


def found(setting: Setting, attack: Attack, threat: Threat, count: int) -> Outcome:
    return execute(setting, Job(setting.digest, threat, attack, *digits(count), 0))


@settings(LOADED, max_examples=2)
@given(st.floats(0.01, 0.3))
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.title)
def test_every_attack_keeps_its_bound_in_whole_levels(attack: Attack, norm: Norm, masked: Setting, eps: float) -> None:
    """The bound by a formula of its own; what is judged is what was found."""
    images, labels = digits(4)
    outcome = found(masked, attack, Threat(norm, eps if norm == "linf" else 10 * eps), 4)
    change = np.abs(outcome.found.astype(int) - images).reshape(4, -1)
    assert outcome.found.dtype == np.uint8
    if norm == "linf":
        assert (change.max(1) <= eps * 255 + 1e-6).all()
    else:
        assert (np.sqrt((change**2).sum(1)) <= 10 * eps * 255 + 1e-6).all()
    right = masked.target(Threat(norm, eps)).shipped.labels(outcome.found, 0) == labels
    np.testing.assert_array_equal(outcome.judged, right)


@pytest.mark.parametrize(
    ("attack", "norm", "eps"),
    [
        *((attack, "linf", 0.3) for attack in ATTACKS if attack.knowledge in ("adaptive", "transfer")),
        *((attack, "l2", 4.0) for attack in ATTACKS if attack.knowledge in ("adaptive", "transfer")),
        (Square(500), "linf", 0.3),
        (Square(1000), "l2", 4.0),
        (HopSkipJump(5), "linf", 0.6),
        (HopSkipJump(5), "l2", 7.0),
    ],
    ids=lambda value: value.title if isinstance(value, Attack) else str(value),
)
def test_what_breaks_a_network_breaks_it_behind_a_mask(attack: Attack, norm: Norm, eps: float, masked: Setting) -> None:
    assert found(masked, attack, Threat(norm, eps), 8).judged.mean() <= 0.25


def test_no_attack_breaks_a_hardened_network(hardened: Setting) -> None:
    left = {attack.title: found(hardened, attack, Threat("linf", 0.2), 16).judged.mean() for attack in ATTACKS}
    assert min(left.values()) >= 0.8


@settings(LOADED, max_examples=25)
@given(
    arrays(np.float32, (4, 5), elements=st.floats(-100, 100, width=32)), arrays(np.int64, 4, elements=st.integers(0, 4))
)
def test_the_margin_is_the_lead_of_the_best_other_class(scores: Any, labels: Any) -> None:
    want = [max(np.delete(row, label)) - row[label] for row, label in zip(scores, labels, strict=True)]
    np.testing.assert_array_equal(margin(torch.from_numpy(scores), torch.from_numpy(labels)).numpy(), want)


def test_more_draws_give_a_steadier_gradient(tmp_path: Path) -> None:
    """Over K draws of the noise two gradients lie nearer to each other as K grows."""
    images, labels = digits(16)
    setting = setting_of(read_recipe(made(tmp_path, "cln", f"{NOISE}\nstrength = 64.0")), images)
    defence, x = setting.target(Threat("linf", 0.1)).defence, planar(images)

    def gradient(draws: int, seed: int) -> Any:
        at = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(
            view(defence, "identity", draws, seed)(at), torch.from_numpy(labels), reduction="sum"
        )
        return torch.autograd.grad(loss, at)[0].flatten()

    apart = [
        float(1 - torch.nn.functional.cosine_similarity(gradient(draws, 1), gradient(draws, 2), 0))
        for draws in (1, 5, 20)
    ]
    assert apart[0] > 1.5 * apart[1] > 1.5 * 1.5 * apart[2]


@settings(LOADED)
@given(SHARES, SHARES, arrays(np.float64, 6, elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_the_worst_case_of_each_image_is_chosen_by_some_draws_and_judged_by_others(
    chosen: Any, judged: Any, clean: Any
) -> None:
    worst = _worst([(clean, clean), *zip(chosen, judged, strict=True)])
    for image in range(6):
        least, share = clean[image], clean[image]
        for by_some, by_others in zip(chosen, judged, strict=True):
            if by_some[image] < least:
                least, share = by_some[image], by_others[image]
        assert worst[image] == share


@pytest.mark.parametrize(
    ("steps", "classes", "absent", "present"),
    [
        (JPEG, 10, "", "dlr-targeted surrogate"),
        (JPEG, 3, "dlr-targeted", "dlr surrogate"),
        (JPEG, 2, "dlr", "margin surrogate"),
        (NOISE, 10, "fab", "ce identity EOT 20"),
        (NOISE, 10, "dlr-targeted", "ce identity EOT 5"),
        ("", 10, "surrogate", "fab identity"),
    ],
)
def test_attacks_follow_from_the_chain(steps: str, classes: int, absent: str, present: str, tmp_path: Path) -> None:
    chain = plan(recipe=read_recipe(made(tmp_path, "cln", steps))).chain
    titles = [a.title for a in attacks_for(chain, "standard", classes=classes, has_gradient=True, gives_scores=True)]
    assert any(present in title for title in titles)
    assert not absent or not any(absent in title for title in titles)
    assert len(set(titles)) == len(titles)
