"""A device for the tests of this folder, and the runtime's fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.conftest import make_bundle, weights

from .sshd import Sshd

__all__ = ["make_bundle", "weights"]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Sshd]:
    """This machine behind an sshd of its own."""
    sshd = Sshd(tmp_path / "board")
    yield sshd
    sshd.close()
