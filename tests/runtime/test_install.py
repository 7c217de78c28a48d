"""Releases onto a device in a folder: installed, exchanged, returned, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemask_runtime.install.layout import Layout

from .boards import Board, Maker
from .manager import managed
from .tiny import MakeBundle


@pytest.fixture(scope="module")
def maker(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"), make_bundle())


@pytest.fixture
def board(tmp_path: Path, maker: Maker) -> Iterator[Board]:
    layout = Layout(tmp_path / "root", tmp_path / "system")
    with managed(layout, tmp_path) as manager:
        yield Board(tmp_path, layout, manager, maker)


def test_a_release_is_installed_and_the_next_one_takes_its_place(board: Board) -> None:
    done = board.install(board.maker.release(1), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines[-1]["installed"]["serial"] == 1
    board.manager.becomes("active", "version 1")
    board.installed(2)
    told = board.status()
    assert (told["installed"]["serial"], told["previous"]["serial"]) == (2, 1)
    assert told["service"]["state"] == "active"
    assert told["trouble"] == []
    assert board.check() == 2
