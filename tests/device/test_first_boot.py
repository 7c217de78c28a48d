"""What a board does at its first start, with an installer that does as it is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtime.boards import HERE, Board
from runtime.conftest import board, maker

from edgemask.device import first_start
from edgemask.device.first_start import plan_json
from edgemask_runtime.install.card import PLAN, UNIT
from edgemask_runtime.install.first_boot import LOG, carry_out
from edgemask_runtime.install.layout import Layout

__all__ = ["board", "maker"]
NOW = int(time.time())
ORDER = ["edgemask.release", "--sha256", "ab" * 32, "--enrol", "enrol.pub"]
SAYS = "import sys; print('given', *sys.argv[1:]); print('in', __import__('os').getcwd(), flush=True); sys.exit({code})"


class Card:
    """The files that `edgemask flash` puts onto a card, and the board's boot partition."""

    def __init__(self, folder: Path, layout: Layout | None = None) -> None:
        self.layout = layout or Layout(folder / "root", folder / "system")
        self.folder, self.units, self.boot = self.layout.card, self.layout.units, folder / "boot"
        self.wanted = self.units / "multi-user.target.wants" / UNIT
        self.boot.mkdir(parents=True)
        self.put(b"release")

    def put(self, release: bytes, *order: str) -> None:
        for path in (self.folder, self.units / "multi-user.target.wants"):
            path.mkdir(parents=True, exist_ok=True)
        (self.folder / PLAN).write_text(plan_json(NOW - 60, order or ORDER))
        (self.folder / "edgemask.release").write_bytes(release)
        (self.units / UNIT).write_text("[Unit]")
        self.wanted.symlink_to(f"../{UNIT}")

    def is_gone(self) -> bool:
        return not (self.folder.exists() or self.wanted.is_symlink() or (self.units / UNIT).exists())

    def start(self, code: int, boot: Path | None = None) -> int:
        command = [sys.executable, "-c", SAYS.format(code=code)]
        return carry_out(self.layout, boot or self.boot, command=command)

    def log(self) -> str:
        return (self.boot / LOG).read_text()


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_a_success_takes_itself_away(card: Card, capfd: pytest.CaptureFixture[str]) -> None:
    assert card.start(0) == 0
    assert card.is_gone()
    journal = capfd.readouterr().out
    assert f"given {' '.join(ORDER)}\nin {card.folder}\n" in journal
    assert all(line in card.log() for line in journal.splitlines())
    assert "done: a release is installed" in card.log()


def test_a_failure_is_told_and_tried_again(card: Card) -> None:
    assert card.start(5) == 5
    assert "failed with exit code 5; it is tried again at the next start" in card.log()
    assert (card.folder / "edgemask.release").exists()
    assert card.wanted.exists()
    assert card.start(0) == 0
    assert "failed" not in card.log()


def test_a_cut_behind_the_plan_starts_nothing_again(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", cut)
    with pytest.raises(KeyboardInterrupt):
        card.start(0)
    assert not (card.folder / "plan.json").exists()
    assert "ConditionPathExists={place}/plan.json" in first_start.UNIT_TEXT


def test_a_boot_partition_that_takes_nothing_stops_nothing(card: Card, tmp_path: Path) -> None:
    assert card.start(0, boot=tmp_path / "not mounted") == 0
    assert not card.folder.exists()


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 1, "prepared": "now", "install": []}'])
def test_a_broken_plan_is_told(text: str, card: Card) -> None:
    (card.folder / "plan.json").write_text(text)
    assert card.start(0) == 2
    assert "failed: " in card.log()
    assert "plan.json" in card.log()


def test_a_clock_in_the_past_is_set_to_the_preparing(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, moment: moments.append(moment))
    (card.folder / "plan.json").write_text(plan_json(NOW + 10**6, ORDER))
    assert card.start(0) == 0
    assert moments == [NOW + 10**6]
    assert "the clock stood before" in card.log()


def test_a_clock_that_may_be_right_is_left_alone(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, moment: moments.append(moment))
    assert card.start(0) == 0
    assert moments == []


def carded(tmp_path: Path, board: Board, release: Path) -> Card:
    """A card with this release for this board."""
    card = Card(tmp_path / "card", board.layout)
    card.wanted.unlink()
    card.put(release.read_bytes(), "edgemask.release", "--enrol", str(board.maker.public))
    return card


def started(card: Card, board: Board) -> int:
    """The card's first start with the real installer."""
    command = [sys.executable, str(HERE / "installer.py"), str(board.folder), "0", "install"]
    return carry_out(board.layout, card.boot, command=command)


def test_a_card_installs_once(tmp_path: Path, board: Board) -> None:
    card = carded(tmp_path, board, board.maker.release(1))
    assert started(card, board) == 0, card.log()
    assert board.check() == 1
    assert card.is_gone()


def test_what_came_by_another_way_is_not_replaced_by_the_cards(tmp_path: Path, board: Board) -> None:
    """The first start failed, somebody installed a newer release over ssh; its power was cut before the plan went."""
    card = carded(tmp_path, board, board.maker.release(1, "crash"))
    assert started(card, board) == 5, card.log()
    assert not card.is_gone()
    board.installed(5)
    assert card.is_gone()
    card.put(board.maker.release(1).read_bytes(), "edgemask.release", "--enrol", str(board.maker.public))
    assert started(card, board) == 0
    assert "a release is installed here already" in card.log()
    assert board.check() == 5
    assert card.is_gone()


def test_the_same_again_and_uninstall_forget_the_card(tmp_path: Path, board: Board) -> None:
    board.installed(1)
    card = carded(tmp_path, board, board.maker.release(2))
    board.installed(1)
    assert card.is_gone()
    card.put(b"release")
    assert board.run("uninstall").returncode == 0
    assert card.is_gone()


def test_a_card_that_never_installed_is_forgotten_by_uninstall(tmp_path: Path, board: Board) -> None:
    card = carded(tmp_path, board, board.maker.release(1, "crash"))
    assert board.run("uninstall").returncode == 0
    assert card.is_gone()


def test_host_and_board_agree_on_names() -> None:
    assert (first_start.UNIT, first_start.PLAN) == (UNIT, PLAN)
    assert (Path(first_start.PLACE), Path(first_start.STATE)) == (Layout().card, Layout().state)
    assert first_start.LOG == LOG
    assert "After=edgemask-recover.service" in first_start.UNIT_TEXT.splitlines()
    assert json.loads(plan_json(1, ["a"])) == {"schema": 1, "prepared": 1, "install": ["a"]}


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("apt-get install systemd")
    unit = tmp_path / UNIT
    unit.write_text(first_start.UNIT_TEXT.format(place=first_start.PLACE, wheel="edgemask_runtime-0.1.0.whl"))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert UNIT not in done.stderr, done.stderr
