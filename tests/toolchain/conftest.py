"""Fixtures of the toolchain's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemask.releasing import place

from .releases import Wheelhouse


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    """Wheels of a few bytes; keys and caches under `tmp_path`."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    made = Wheelhouse(folder)
    monkeypatch.setattr(place, "wheels_for", made.wheels_for)
    return made
