"""The runtime's fixtures, here too, and one board for the tests of a file that keep it serving."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime.conftest import make_bundle, weights

from .device import Device
from .machine import Board
from .releases import Maker

__all__ = ["make_bundle", "weights"]


FIRST = 5


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A board that was just switched on, with nothing of ours on it, and a first release for it."""
    folder = tmp_path_factory.mktemp("board")
    board, maker = Board(folder), Maker(folder / "maker")
    board.power_on()
    try:
        maker.keygen("release")
        made = Device(board, maker, maker.update(maker.build(FIRST, "--min-serial", str(FIRST)), FIRST))
        made.say(f"the board is up, {board.wait_for_ssh():.0f} s after its release was built")
        yield made
    finally:
        board.cut_power()
