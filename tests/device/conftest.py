"""A device for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .sshd import Sshd


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Sshd]:
    """This machine behind an sshd of its own."""
    sshd = Sshd(tmp_path / "board")
    yield sshd
    sshd.close()
