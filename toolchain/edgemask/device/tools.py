"""The system's own programs for disks: found also where only root's PATH looks, and named with their package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgemask.errors import UserError

PACKAGES = {
    "mcopy": "mtools",
    "mdir": "mtools",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "lsblk": "util-linux",
}
# Why: messages are read, a pager would wait for a key, and an image's geometry is no disk's.
PLAIN = {"LC_ALL": "C", "DEBUGFS_PAGER": "__none__", "MTOOLS_SKIP_CHECK": "1"}


def tool(name: str) -> str:
    """The path of a program; UserError that names its package where it is missing."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        raise UserError(f"{name} is missing on this machine", f"install it: sudo apt install {PACKAGES[name]}")
    return found


def run(arguments: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; what it printed is bytes, and how it ended is the caller's to judge."""
    command = [tool(arguments[0]), *arguments[1:]]
    environment = {**os.environ, **PLAIN}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last line that a program said of a fault."""
    text = b"\n".join((done.stderr, done.stdout)).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in lines if line and not _is_banner(line)), f"ended with {done.returncode}")


def _is_banner(line: str) -> bool:
    return line.startswith(("debugfs ", "e2fsck "))
