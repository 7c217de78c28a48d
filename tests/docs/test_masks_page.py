"""docs/masks.md and its pictures are what the definitions give; `python docs/make_masks.py` renews them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_masks", DOCS / "make_masks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_definitions_give(maker: ModuleType) -> None:
    assert (DOCS / "masks.md").read_text(encoding="utf-8") == maker.page()


def test_the_pictures_are_what_the_masks_make(maker: ModuleType) -> None:
    """Masks that are not exact may flip a pixel on another processor."""
    shown, made = np.asarray(Image.open(DOCS / "masks.png")), np.asarray(maker.grid())
    assert shown.shape == made.shape
    assert np.mean(shown != made) <= 1e-3
