"""A device for the tests of this folder, and the runtime's fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.conftest import make_bundle, weights
from runtime.tiny import MakeBundle

from .far import Far, far_device
from .sshd import Sshd

__all__ = ["make_bundle", "weights"]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Sshd]:
    """This machine behind an sshd of its own."""
    sshd = Sshd(tmp_path / "board")
    yield sshd
    sshd.close()


@pytest.fixture
def far(tmp_path: Path, board: Sshd, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    """A device with nothing on it, which takes releases."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = far_device(tmp_path, board, make_bundle())
    yield made
    made.manager.close()
