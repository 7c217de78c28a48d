"""Changes that a power cut cannot undo: each is on the disk when its function returns."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgemask_runtime.files import write_atomic

READABLE = 0o644


def write(path: Path, data: bytes, *, mode: int = READABLE) -> None:
    """Replace a file: after a power cut it is the old one or the new one."""
    write_atomic(path, data, mode=mode)
    sync(path.parent)


def link(path: Path, target: Path | str) -> None:
    """Point `path` to `target`: it never points nowhere, nor is it absent where it was there."""
    beside = path.with_name(f".{path.name}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
    sync(path.parent)


def move(path: Path, to: Path) -> None:
    """Rename within a folder, in place of what is there."""
    path.replace(to)
    sync(to.parent)


def remove(path: Path) -> None:
    """Remove a file or a link, if it is there."""
    if path.is_symlink() or path.exists():
        path.unlink()
        sync(path.parent)


def remove_parts(path: Path) -> None:
    """Remove what a cut left beside a file or a link that was being replaced."""
    for part in list(path.parent.glob(f".{path.name}.*part")):
        remove(part)


def remove_tree(path: Path) -> None:
    """Remove a folder with all in it, or whatever else lies there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    else:
        return
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir()
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all files and folders of a tree are on the disk; OSError if one of them is not."""
    # Why first: it writes them out together, and each fsync then has little left to do but to tell of faults.
    os.sync()
    for path in _below(folder):
        if not path.is_symlink():
            sync(path)


def _below(folder: Path) -> Iterator[Path]:
    """A tree's files and folders, each folder after what is in it."""
    for place, _, files in os.walk(folder, topdown=False):
        yield from (Path(place, name) for name in files)
        yield Path(place)
