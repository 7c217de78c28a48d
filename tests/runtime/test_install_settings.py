"""Settings of the owner's that come with a release: in force with it, gone with it, and never lost on the way."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edgemask_runtime.install import durable, own_settings
from edgemask_runtime.install.layout import Layout, SlotName
from edgemask_runtime.install.slots import Slot

from .boards import Board

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of settings whose comments say whose they are, and how the daemon is to behave on them."""

    def written(*comments: str) -> Path:
        path = tmp_path / f"{'-'.join(comments)}.toml"
        path.write_text("".join(["schema = 1\n", *(f"# {comment}\n" for comment in comments)]))
        return path

    return written


def runs(board: Board, serial: int, settings: Path | None) -> None:
    """This version runs, on the owner's settings in a file of that content, or on the release's."""
    board.manager.becomes("active", f"version {serial}")
    assert board.check() == serial
    assert board.status()["settings"] == ("the owner's" if settings else "the release's")
    assert board.layout.settings.is_symlink() == (settings is None)
    assert settings is None or board.layout.settings.read_text() == settings.read_text()
    assert ("settings: " in board.manager.said()) == (settings is not None)
    assert settings is None or f"settings: {settings.stem}" in board.manager.said()


def beside(board: Board) -> dict[str, str]:
    """What lies beside the settings, of the version before."""
    others = [path for path in board.layout.settings.parent.iterdir() if path != board.layout.settings]
    return {path.name: path.read_text() for path in others}


def rolled_back(board: Board) -> None:
    done = board.run("rollback")
    assert done.returncode == 0, done.stderr


def by_hand(board: Board, settings: Path) -> int:
    """Put a file there by hand; its inode."""
    board.layout.settings.parent.mkdir(parents=True, exist_ok=True)
    board.layout.settings.unlink(missing_ok=True)
    board.layout.settings.write_text(settings.read_text())
    return board.layout.settings.stat().st_ino


def test_they_go_with_the_version_that_they_came_with(board: Board, write: Write) -> None:
    board.installed(1)
    board.installed(2, "--settings", write("two"))
    runs(board, 2, write("two"))
    assert stat.S_IMODE(board.layout.settings.stat().st_mode) == 0o644
    rolled_back(board)
    runs(board, 1, None)
    assert beside(board) == {"edgemaskd.slot-b.toml": write("two").read_text()}
    rolled_back(board)
    runs(board, 2, write("two"))
    assert beside(board) == {}
    board.installed(3, "--settings", write("three"))
    assert beside(board) == {"edgemaskd.slot-b.toml": write("two").read_text()}
    by_hand(board, write("three", "edited"))
    rolled_back(board)
    runs(board, 2, write("two"))
    rolled_back(board)
    assert board.layout.settings.read_text() == write("three", "edited").read_text()


def test_an_update_without_any_keeps_those_in_force(board: Board, write: Write) -> None:
    board.installed(1, "--settings", write("one"))
    board.installed(2, "--settings", write("two"))
    board.installed(3)
    runs(board, 3, write("two"))
    assert beside(board) == {}
    rolled_back(board)
    runs(board, 2, write("two"))


def test_other_settings_alone_go_through_the_gate_too(board: Board, write: Write) -> None:
    board.installed(1, "--settings", write("first"))
    board.installed(1, "--settings", write("second"))
    assert board.layout.running() == "b"
    runs(board, 1, write("second"))
    before = board.manager.state().run
    board.installed(1, "--settings", write("second"))
    assert board.manager.state().run == before
    done = board.install(board.maker.release(1), "--settings", write("third", "crash"))
    assert done.returncode == 5, done.stderr
    runs(board, 1, write("second"))


@pytest.mark.parametrize("by", ["nobody", "flash", "hand"])
def test_a_gate_that_fails_brings_the_old_ones_back(board: Board, write: Write, by: str) -> None:
    board.installed(1, *(["--settings", write("one")] if by == "flash" else []))
    if by == "hand":
        by_hand(board, write("one"))
        board.start()
    inode = board.layout.settings.stat().st_ino
    done = board.install(board.maker.release(2), "--settings", write("two", "crash"))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "settings: two, crash" in done.stderr
    assert "hint: tiny 1.0 (serial 1) runs again" in done.stderr
    runs(board, 1, None if by == "nobody" else write("one"))
    assert board.layout.settings.stat().st_ino == inode
    assert beside(board) == {}


def test_what_its_daemon_refuses_is_never_in_force(board: Board, write: Write) -> None:
    board.installed(1, "--settings", write("one"))
    done = board.install(board.maker.release(2), "--settings", write("two", "cold"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the warm-up failed" in done.stderr
    runs(board, 1, write("one"))
    assert beside(board) == {}
    assert "none.toml: cannot read" in board.refuses("install", board.maker.release(3), "--settings", "none.toml")


def test_a_first_install_that_fails_leaves_the_file_that_was_there(board: Board, write: Write) -> None:
    inode = by_hand(board, write("mine"))
    done = board.install(board.maker.release(1), "--settings", write("other", "crash"))
    assert done.returncode == 5, done.stderr
    assert (board.layout.settings.stat().st_ino, beside(board)) == (inode, {})
    board.installed(1, "--settings", write("other"))
    runs(board, 1, write("other"))
    assert beside(board) == {}


def test_those_in_force_stay_when_all_is_taken_away(board: Board, write: Write) -> None:
    board.installed(1, "--settings", write("one"))
    board.installed(2, "--settings", write("two"))
    assert board.run("uninstall").returncode == 0
    assert board.layout.settings.read_text() == write("two").read_text()
    assert beside(board) == {}
    board.installed(1)
    runs(board, 1, write("two"))
    _cut_in_the_gate(board, write("three", "silent"))
    assert board.run("uninstall").returncode == 0
    assert board.layout.settings.read_text() == write("two").read_text()
    assert beside(board) == {}


def _cut_in_the_gate(board: Board, settings: Path) -> None:
    """Kill the installer while it waits for a daemon that says nothing."""
    with board.in_the_gate(board.maker.release(2), "--settings", settings) as installer:
        installer.process.kill()


def test_damage_does_not_mix_them_up(board: Board, write: Write) -> None:
    board.installed(1, "--settings", write("one"))
    board.installed(2, "--settings", write("two"))
    board.layout.state.unlink()
    assert board.run("recover").returncode == 0
    runs(board, 2, write("two"))
    rolled_back(board)
    runs(board, 1, write("one"))
    rolled_back(board)
    Slot(board.layout.slot("b")).clear()
    assert board.run("recover").returncode == 0
    runs(board, 1, write("one"))
    assert beside(board) == {}


class Cut(Exception):
    """The power is gone."""


def cut_off(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, slot: SlotName, own: tuple[SlotName, ...], at: int
) -> None:
    """Put settings in force, cut off before the move of this number."""
    moves, move = itertools.count(), durable.move

    def until(path: Path, to: Path) -> None:
        if next(moves) == at:
            raise Cut
        move(path, to)

    with monkeypatch.context() as patched, suppress(Cut):
        patched.setattr(durable, "move", until)
        own_settings.put_in_force(layout, slot, own)


@pytest.mark.parametrize("goal", ["a", "b"])
@pytest.mark.parametrize("owned", ["", "a", "b", "ab"])
def test_an_exchange_comes_to_its_end_from_wherever_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: str, goal: SlotName
) -> None:
    """There, cut off, back, cut off, and there or back at last; files where nobody has any are absent."""
    for number, cuts in enumerate(itertools.product(range(3), repeat=3)):
        layout = Layout(tmp_path, tmp_path / str(number))
        layout.settings.parent.mkdir(parents=True)
        for slot, place in (("a", layout.settings), ("b", layout.beside("b"))):
            if slot in owned:
                place.write_text(slot)
        own = own_settings.owned(layout, "b")
        assert sorted(own) == sorted(owned)
        for slot, cut in zip(("b", "a", "b"), cuts, strict=True):
            cut_off(monkeypatch, layout, slot, own, cut)
        own_settings.put_in_force(layout, goal, own)
        other = layout.beside("b" if goal == "a" else "a")
        expected = {layout.settings: goal} if goal in owned else {}
        expected |= {other: other.stem[-1]} if other.stem[-1] in owned else {}
        assert {path: path.read_text() for path in layout.settings.parent.iterdir()} == expected, cuts
