"""Fixtures of the runtime's tests: bundles and folders of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.bundle import write_bundle
from edgemask_runtime.install.layout import Layout

from .boards import Board, Maker
from .manager import managed
from .tiny import CLASSES, PIXELS, SHAPE, MakeBundle, manifest_of, model_bytes, picture, write_pgm


@pytest.fixture(scope="session")
def weights() -> np.ndarray[Any, Any]:
    """Class k looks at row k of the frame alone, so a test can paint the answer it wants."""
    rows = np.zeros((CLASSES, *SHAPE))
    for row in range(CLASSES):
        rows[row, row] = 0.01
    return rows.reshape(CLASSES, PIXELS)


@pytest.fixture(scope="session")
def make_bundle(weights: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Write a bundle of the tiny classifier and return its path."""

    def make(engine: str = "onnxruntime", *, noisy: bool = False, **changes: Any) -> Path:
        model = model_bytes(weights, engine, noisy)
        manifest = dataclasses.replace(manifest_of(model, engine, noisy), **changes)
        path = tmp_path_factory.mktemp("bundle") / "tiny.edgemask"
        write_bundle(path, manifest, {manifest.model.file: model}, {"parity": "ok"})
        return path

    return make


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of six PGM files; file k shows class k modulo 4."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for index in range(6):
        write_pgm(folder / f"{index}.pgm", picture(index % CLASSES))
    return folder


@pytest.fixture(scope="session")
def maker(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes releases of the tiny classifier."""
    return Maker(tmp_path_factory.mktemp("maker"), make_bundle())


@pytest.fixture
def board(tmp_path: Path, maker: Maker) -> Iterator[Board]:
    """A device with nothing on it."""
    layout = Layout(tmp_path / "root", tmp_path / "system")
    with managed(layout, tmp_path) as manager:
        yield Board(tmp_path, layout, manager, maker)
