"""The copy that is trained on a file's answers: on other images than it is attacked on, the same every time, of use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemask.recipe import read_recipe

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
import torch

from edgemask.auditing.attacks.queries import UniformNoise
from edgemask.auditing.attacks.substitute import Substitute, folds_of
from edgemask.auditing.campaign import Subject, Task, execute_here
from edgemask.auditing.setting import setting_of
from edgemask.auditing.shipped import Labels, Shipped
from edgemask.auditing.threat import Threat
from edgemask_runtime.formats import Pixels

from .mnist import digits, lenet5, recipe_of

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
N = 256


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("digits")
    lenet5("cln", folder / "net.onnx")
    (folder / "edgemask.toml").write_text(recipe_of("net.onnx", 'kind = "jpeg"'))
    images, labels = digits(N)
    return Subject(setting_of(read_recipe(folder / "edgemask.toml"), images), Threat("linf", 0.2), images, labels)


def test_a_copy_answers_as_the_file_and_its_examples_carry_over(subject: Subject) -> None:
    """Of 128 digits it learns enough to fool the file more often than noise of the same size does."""
    attack, target = Substitute(rounds=2), subject.setting.target(subject.threat)
    folds = folds_of(subject.frames)
    unseen = subject.frames[folds == 0]
    scores = attack.copy(target, 0)(torch.from_numpy(unseen.transpose(0, 3, 1, 2)).float() / 255)
    answers = scores.argmax(1).numpy()
    assert np.mean(answers == target.shipped.labels(unseen, 0)) > 0.7
    left = {who.name: execute_here(subject, Task(who, 0, 128)).judged.mean() for who in (attack, UniformNoise())}
    assert left["uniform-noise"] > 0.9
    assert left["substitute"] < left["uniform-noise"] - 0.08


def test_a_copy_never_saw_what_it_is_attacked_on(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image that it is trained on is one of the other half, or was moved from one of them."""
    asked: list[Pixels] = []
    answer = Shipped.labels

    def noted(self: Shipped, frames: Pixels, draw: int) -> Labels:
        asked.append(frames)
        return answer(self, frames, draw)

    monkeypatch.setattr(Shipped, "labels", noted)
    target, folds = subject.setting.target(subject.threat), folds_of(subject.frames)
    Substitute(rounds=1, epochs=1).copy(target, 0)
    first, moved = asked
    np.testing.assert_array_equal(first, subject.frames[folds == 1])
    assert np.abs(moved.astype(int) - first).max() <= 25
    twice = np.concatenate([subject.frames, subject.frames])
    assert (folds_of(twice).reshape(2, -1) == folds).all()


def test_a_copy_is_the_same_in_another_run(subject: Subject) -> None:
    attack = Substitute(rounds=1, epochs=2)
    one, other = (attack.copy(subject.setting.target(subject.threat), 1).state_dict() for _ in range(2))
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_a_single_image_leaves_nothing_to_train_on(subject: Subject) -> None:
    """The copy is then as it was drawn, and the row says what that is worth; nothing fails."""
    images, labels = subject.frames[:1], subject.labels[:1]
    alone = Subject(replace(subject.setting, images=images), subject.threat, images, labels)
    assert execute_here(alone, Task(Substitute(epochs=1), 0, 1)).found.shape == images.shape
