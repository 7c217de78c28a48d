"""Attacks in processes of this machine and on a Ray cluster: the same found everywhere, nothing lost when one dies."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemask
from edgemask.errors import UserError

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from edgemask.auditing.attacks import Attack
from edgemask.auditing.attacks.auto import Apgd
from edgemask.auditing.attacks.queries import Square, UniformNoise
from edgemask.auditing.campaign import Subject, Trial, run
from edgemask.auditing.cluster import Cluster
from edgemask.auditing.processes import processes
from edgemask.auditing.setting import setting_of
from edgemask.auditing.threat import Threat
from edgemask.auditing.work import Runner, here
from edgemask.recipe import read_recipe

from .dying import Deadly, Dying
from .mnist import digits, lenet5, recipe_of

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
ATTACKS = (UniformNoise(), Apgd(steps=5, draws=2), Square(queries=40))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runners")
    lenet5("cln", folder / "cln.onnx")
    (folder / "edgemask.toml").write_text(recipe_of("cln.onnx", 'kind = "noise"'))
    images, labels = digits(70)
    np.savez(folder / "digits.npz", x=images, y=labels)
    return folder


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """Ray's clusters ask for one, and would write it into the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex())
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on two nodes of two processors each; its sessions lie in /tmp, for a socket's path must be short."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        nodes.add_node(num_cpus=2)
        nodes.wait_for_nodes(timeout=60)
        yield nodes
        nodes.shutdown()


def trial(home: Path, attacks: Sequence[Attack] = ATTACKS) -> dict[str, Trial]:
    images, labels = digits(70)
    setting = setting_of(read_recipe(home / "edgemask.toml"), images)
    return {"noise": Trial(Subject(setting, Threat("linf", 0.1), images, labels), attacks)}


def kept(home: Path, out: Path, runner: Runner, attacks: Sequence[Attack] = ATTACKS) -> dict[str, list[Any]]:
    """All that a run keeps, by file, less the time it took."""
    out.mkdir()
    run(trial(home, attacks), out, runner)
    files = {file.name: np.load(file, allow_pickle=False) for file in out.glob("*.npz")}
    return {name: [file[part].tobytes() for part in ("found", "chosen", "judged")] for name, file in files.items()}


def killed(folder: Path) -> threading.Thread:
    """Kill whoever says who it is in the pipe `folder`/pid."""
    os.mkfifo(folder / "pid")

    def wait() -> None:
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("runner", ["processes", "ray"])
def test_a_worker_that_is_killed_midway_loses_nothing(
    runner: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = processes(2) if runner == "processes" else Cluster(request.getfixturevalue("cluster").address)
    attacks = (Dying(steps=5, folder=str(tmp_path)), *ATTACKS)
    killer = killed(tmp_path)
    found = kept(home, tmp_path / "runner", asked, attacks)
    killer.join(60)
    assert not killer.is_alive()
    assert len(found) == 3 * len(attacks)
    assert found == kept(home, tmp_path / "here", here, attacks)


def test_a_machine_that_is_lost_midway_loses_nothing(home: Path, tmp_path: Path, cluster: Any) -> None:
    node, lost = cluster.add_node(num_cpus=2), []

    def losing(*given: Any) -> Any:
        for number, outcome in Cluster(cluster.address)(*given):
            if not lost:
                lost.append(cluster.remove_node(node, allow_graceful=False))
            yield number, outcome

    assert kept(home, tmp_path / "ray", losing) == kept(home, tmp_path / "here", here)
    assert lost


def test_the_command_finds_the_same_on_a_cluster_of_its_own(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    asked = {"eps": "0.1", "limit": 8}
    data = home / "edgemask.toml", home / "digits.npz"
    alone = edgemask.audit(*data, out=tmp_path / "alone", workers=1, **asked)
    there = edgemask.audit(*data, out=tmp_path / "there", workers=2, ray="local", **asked)
    assert [row.left for row in there.rows] == [row.left for row in alone.rows]
    assert (there.verdict, there.worst, there.curve) == (alone.verdict, alone.worst, alone.curve)
    assert {file.name for file in (tmp_path / "there" / "kept").iterdir()} == {
        file.name for file in (tmp_path / "alone" / "kept").iterdir()
    }


@pytest.mark.parametrize(
    ("runner", "message"),
    [("processes", "died 4 times, each time with its process"), ("ray", "lost on the cluster")],
)
def test_a_job_that_always_dies_is_one_error(
    runner: str, message: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = processes(2) if runner == "processes" else Cluster(request.getfixturevalue("cluster").address)
    with pytest.raises(UserError, match=message):
        run(trial(home, [Deadly()]), tmp_path, asked)


def test_another_version_on_a_machine_is_one_error(
    home: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemask.auditing.cluster.versions", lambda: (("numpy", "1.0"),))
    with pytest.raises(UserError, match=r"has .* this machine"):
        run(trial(home), tmp_path, Cluster(cluster.address))


def test_no_cluster_is_one_error(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"--ray 127.0.0.1:1: no cluster answers"):
        run(trial(home), tmp_path, Cluster("127.0.0.1:1"))
