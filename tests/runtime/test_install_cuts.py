"""Installers killed at every step, and disks that are full from any step on: what runs is always a complete version."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from .boards import Board

FEW = 4
LAST = 14
"""Where the switch is."""


def steps_of(done: subprocess.CompletedProcess[str]) -> int:
    """How many steps an undisturbed run has."""
    assert done.returncode == 0, done.stderr
    match = re.search(r"^steps=(\d+)$", done.stdout, re.MULTILINE)
    assert match, done.stdout
    return int(match[1])


def points(count: int, *, every: bool) -> Iterable[int]:
    """The steps to break off at: all, or some of them and more of the last."""
    if every:
        return range(1, count + 1)
    return sorted({*range(1, count + 1, max(1, count // FEW)), *range(count, max(0, count - LAST), -3)})


def both(test: object) -> object:
    """Some points in the short form, all in the long one."""
    long = pytest.param(True, marks=pytest.mark.slow, id="every")
    return pytest.mark.parametrize("every", [pytest.param(False, id="some"), long])(test)  # type: ignore[arg-type]


@both
def test_a_first_install_may_be_killed_anywhere(board: Board, every: bool) -> None:
    release = board.maker.release(1)
    count = steps_of(board.install(release))
    for at in points(count, every=every):
        board.restore("nothing")
        done = board.install(release, at=at)
        assert done.returncode == -signal.SIGKILL, (at, done.stdout, done.stderr)
        if at % 2:
            board.boot()
            assert not board.layout.state.exists() or board.check() in (0, 1), at
        board.installed(1)
        assert board.check() == 1


@both
def test_an_update_may_be_killed_anywhere(board: Board, every: bool) -> None:
    board.installed(1, min_serial=1)
    board.keep("one")
    release = board.maker.release(2, min_serial=2)
    came_through = []
    for at in points(steps_of(board.install(release)), every=every):
        board.restore("one")
        board.start()
        done = board.install(release, at=at)
        assert done.returncode == -signal.SIGKILL, (at, done.stdout, done.stderr)
        assert board.layout.current.resolve(strict=True)
        assert board.manager.state().active in ("active", "activating")
        board.boot()
        serial = board.check()
        assert board.manager.state().status == f"version {serial}"
        assert board.status()["floor"] == serial
        came_through.append(serial)
    assert came_through == sorted(came_through)
    assert set(came_through) == {1, 2}
    print(f"{len(came_through)} points, {came_through.count(1)} of them back to the version before")


@both
def test_a_recovery_may_be_killed_anywhere(board: Board, every: bool) -> None:
    board.installed(1)
    _cut_in_the_gate(board, board.maker.release(2, "silent"))
    board.keep("cut")
    board.manager.stop()
    for at in points(steps_of(board.run("recover", "--boot")), every=every):
        board.restore("cut")
        done = board.run("recover", "--boot", at=at)
        assert done.returncode == -signal.SIGKILL, (at, done.stdout, done.stderr)
        assert board.layout.current.resolve(strict=True)
        board.boot()
        assert board.check() == 1
        assert "cut off" in board.status()["failure"]["cause"]


def _cut_in_the_gate(board: Board, release: Path, *more: object) -> None:
    """Kill the installer while it waits for a daemon that says nothing."""
    with board.in_the_gate(release, *more) as installer:
        installer.process.kill()


@both
def test_the_disk_may_be_full_from_any_step_on(board: Board, every: bool) -> None:
    board.installed(1)
    board.keep("one")
    release = board.maker.release(2)
    for at in points(steps_of(board.install(release)), every=every):
        board.restore("one")
        board.start()
        done = board.install(release, at=-at)
        assert done.returncode in (0, 2, 5), (at, done.stdout, done.stderr)
        assert done.returncode == 0 or len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or "No space left" in done.stderr or "disk is full" in done.stderr, done.stderr
        board.boot()
        assert board.check() == (2 if done.returncode == 0 else 1), (at, done.stderr)
        board.installed(2)


def settings_of(board: Board, *comments: str) -> Path:
    """The owner's settings in a file; its comments say which they are, and how the daemon is to behave on them."""
    path = board.folder / f"{'-'.join(comments)}.toml"
    path.write_text("".join(f"# {comment}\n" for comment in comments))
    return path


def settings_in_force(board: Board) -> str:
    """Those of the owner's, or none; those of the version before lie beside, and nothing else does."""
    state = json.loads(board.layout.state.read_text())
    allowed = [board.layout.settings, board.layout.beside("b" if state["current"] == "a" else "a")]
    if state["previous"] is None or not state["parted"]:
        allowed.pop()
    assert set(board.layout.settings.parent.iterdir()) <= set(allowed)
    return "" if board.layout.settings.is_symlink() else board.layout.settings.read_text().strip()


def around_moves(done: subprocess.CompletedProcess[str], *, every: bool) -> list[int]:
    """The steps to break off at: all, or those before and behind which settings are moved, and the last."""
    found = {
        name: [int(step) for step in steps.split()] for name, steps in re.findall("(steps|moves)=(.*)", done.stdout)
    }
    (count,) = found["steps"]
    assert len(found["moves"]) >= 2
    return list(range(1, count + 1)) if every else sorted({*found["moves"], found["moves"][-1] + 1, count})


CHANGES = [
    pytest.param("# one", "# two", False, id="some"),
    pytest.param("# one", "# two", True, id="every", marks=pytest.mark.slow),
    pytest.param("", "# two", True, id="every-none-before", marks=pytest.mark.slow),
    pytest.param("# one", "# two\n# crash", False, id="some-a-gate-that-fails"),
    pytest.param("# one", "# two\n# crash", True, id="every-a-gate-that-fails", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("old", "new", "every"), CHANGES)
def test_settings_change_with_the_version_wherever_it_is_killed(board: Board, old: str, new: str, every: bool) -> None:
    """And the recovery from it is killed, too."""
    board.installed(1, *(["--settings", settings_of(board, "one")] if old else []))
    board.keep("one")
    order = (board.maker.release(2), "--settings", settings_of(board, *re.findall(r"\w+", new)))
    found = []
    for at in around_moves(board.install(*order), every=every):
        board.restore("one")
        board.start()
        assert board.install(*order, at=at).returncode == -signal.SIGKILL
        board.run("recover", "--boot", at=1 + at % 12)
        board.boot()
        serial = board.check()
        assert settings_in_force(board) == {1: old, 2: new}[serial], at
        assert board.manager.said().strip() == settings_in_force(board).replace("# ", "settings: "), at
        found.append(serial)
    assert found == sorted(found)
    assert set(found) == ({1} if "crash" in new else {1, 2})


@both
def test_settings_go_back_with_the_version_wherever_a_rollback_is_killed(board: Board, every: bool) -> None:
    board.installed(1, "--settings", settings_of(board, "one"))
    board.installed(2, "--settings", settings_of(board, "two"))
    board.keep("two")
    for at in around_moves(board.run("rollback"), every=every):
        board.restore("two")
        board.start()
        assert board.run("rollback", at=at).returncode == -signal.SIGKILL
        board.boot()
        serial = board.check()
        assert settings_in_force(board) == {1: "# one", 2: "# two"}[serial], at
        assert board.run("rollback").returncode == 0
        assert settings_in_force(board) == {1: "# one", 2: "# two"}[3 - serial], at


@both
def test_settings_are_not_lost_wherever_an_uninstall_is_killed(board: Board, every: bool) -> None:
    board.installed(1, "--settings", settings_of(board, "one"))
    _cut_in_the_gate(board, board.maker.release(2, "silent"), "--settings", settings_of(board, "two"))
    board.keep("cut")
    for at in around_moves(board.run("uninstall"), every=every):
        board.restore("cut")
        board.run("uninstall", at=at)
        assert board.run("uninstall").returncode == 0
        assert board.layout.settings.read_text() == "# one\n", at
        assert list(board.layout.settings.parent.iterdir()) == [board.layout.settings]
