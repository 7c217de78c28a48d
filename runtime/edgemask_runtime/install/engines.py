"""What TensorRT built for models that are no longer installed, and takes up the disk."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from edgemask_runtime.install.layout import SLOTS, Layout
from edgemask_runtime.install.slots import Slot

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_strange_engines(layout: Layout) -> None:
    """Remove what was built for no model of either slot, be it the release's or one of the owner's settings."""
    with suppress(OSError):
        # Why by descriptor: the folder is the daemon's, which could lead this process elsewhere by a link.
        folder = os.open(layout.engines, FOLDER)
        try:
            installed = _installed(layout)
            for path in list(Path(f"/proc/self/fd/{folder}").iterdir()):
                if path.name not in installed:
                    _remove(path)
        finally:
            os.close(folder)


def _installed(layout: Layout) -> set[str]:
    """The digests of the payloads of the models that ran in the warm-up of each slot."""
    completed = [Slot(layout.slot(name)).completed() for name in SLOTS]
    return {model.digest for one in completed if one for model in one.warm.models.values()}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
