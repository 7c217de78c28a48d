"""What a board does at its first start, with an installer that does as it is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemask.device import first_start
from edgemask.device.first_start import plan_json
from edgemask_runtime.install import first_boot
from edgemask_runtime.install.first_boot import LOG, UNIT, carry_out

NOW = int(time.time())
ORDER = ["edgemask.release", "--sha256", "ab" * 32, "--enrol", "enrol.pub"]
SAYS = "import sys; print('given', *sys.argv[1:]); print('in', __import__('os').getcwd(), flush=True); sys.exit({code})"


class Card:
    """The files that `edgemask flash` puts onto a card, and the board's boot partition."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.boot, self.units = folder / "place", folder / "boot", folder / "units"
        for path in (self.folder, self.boot, self.units / "multi-user.target.wants"):
            path.mkdir(parents=True)
        (self.folder / "plan.json").write_text(plan_json(NOW - 60, ORDER))
        (self.folder / "edgemask.release").write_bytes(b"release")
        (self.units / UNIT).write_text("[Unit]")
        self.wanted = self.units / "multi-user.target.wants" / UNIT
        self.wanted.symlink_to(f"../{UNIT}")

    def start(self, code: int, boot: Path | None = None) -> int:
        command = [sys.executable, "-c", SAYS.format(code=code)]
        return carry_out(self.folder, boot or self.boot, command=command, units=self.units)

    def log(self) -> str:
        return (self.boot / LOG).read_text()


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_a_success_takes_itself_away(card: Card, capfd: pytest.CaptureFixture[str]) -> None:
    assert card.start(0) == 0
    assert not card.folder.exists()
    assert not list(card.units.rglob("*.service"))
    journal = capfd.readouterr().out
    assert f"given {' '.join(ORDER)}\nin {card.folder}\n" in journal
    assert all(line in card.log() for line in journal.splitlines())
    assert "done: the release is installed" in card.log()


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


def test_host_and_board_agree_on_names() -> None:
    assert (first_start.UNIT, first_start.LOG, first_start.PLAN) == (UNIT, LOG, first_boot.PLAN)
    assert Path(first_start.PLACE) == first_boot.FOLDER
    assert json.loads(plan_json(1, ["a"])) == {"schema": 1, "prepared": 1, "install": ["a"]}


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("apt-get install systemd")
    unit = tmp_path / UNIT
    unit.write_text(first_start.UNIT_TEXT.format(place=first_start.PLACE, wheel="edgemask_runtime-0.1.0.whl"))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert UNIT not in done.stderr, done.stderr
