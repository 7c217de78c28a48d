"""Fashion-MNIST (MIT) as 32 x 32 RGB images: every garment and its background get colours of their own."""

import gzip
from pathlib import Path

import numpy as np

SEED = 5
NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def load(folder: Path, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of a split ('train' or 't10k') as uint8 [count, 32, 32, 3], and their labels."""
    gray = _idx(folder / f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
    labels = _idx(folder / f"{split}-labels-idx1-ubyte.gz", 8)[:count]
    return coloured(np.pad(gray, ((0, 0), (2, 2), (2, 2)))), labels.astype(np.int64)


def coloured(gray: np.ndarray) -> np.ndarray:
    """Mix a bright and a dark colour, drawn per image, by the grey level."""
    rng = np.random.default_rng(SEED)
    bright = rng.integers(128, 256, (len(gray), 1, 1, 3))
    dark = rng.integers(0, 96, (len(gray), 1, 1, 3))
    weight = gray[..., None].astype(np.int64)
    return ((weight * bright + (255 - weight) * dark) // 255).astype(np.uint8)


def _idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
