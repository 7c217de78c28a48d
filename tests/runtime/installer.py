"""edgemask-device on a test's own folder, and killed at a step if one is named; prints how many steps there were.

`python installer.py FOLDER KILL_AT VERB...`; a step is whatever changes a name or a file below FOLDER, a move one
that renames settings.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "subprocess.Popen"}
STEADY_S = float(os.environ.get("TESTS_STEADY_S", "0"))
WRITABLE = [path for path in os.environ.get("TESTS_WRITABLE", "").split(os.pathsep) if path]
"""All else below FOLDER is read-only, if any is named: the sandbox of the unit that recovers."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Steps:
    """Counts changes, and breaks off at one of them: by SIGKILL, or by a disk that is full from there on."""

    def __init__(self, folder: str, at: int, full: bool) -> None:
        self.folder, self.at, self.full, self.count = folder, at, full, 0
        self.moves: list[int] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_change(event, arguments):
            return
        self.count += 1
        if event == "os.rename" and "/edgemaskd." in str(arguments[1]):
            self.moves.append(self.count)
        if WRITABLE and not any(_changed(event, arguments).startswith(path) for path in WRITABLE):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), _changed(event, arguments))
        if self.full and self.at and self.count >= self.at and event in ("open", "os.mkdir", "os.symlink"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        if self.count == self.at and not self.full:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return bool(flags & WRITES) and self.folder in str(path)
        return event in CHANGES and any(self.folder in str(argument) for argument in arguments)


def _changed(event: str, arguments: tuple[Any, ...]) -> str:
    return str(arguments[1] if event in ("os.rename", "os.symlink") else arguments[0])


def main(folder: str, at: str, *arguments: str) -> int:
    import shutil

    from edgemask_runtime.install import cli, gate
    from edgemask_runtime.install.layout import Layout
    from runtime.manager import Far

    # So that what it removes has whole paths, by which steps are known.
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    gate.READY_LIMIT_S, gate.POLL_S = 1.0, 0.02
    # A process that is killed loses nothing that it wrote; what a power cut loses is tests/board's to show.
    os.sync = os.fsync = lambda *_: None  # type: ignore[assignment]
    layout = Layout(Path(folder, "root"), Path(folder, "system"))
    steps = Steps(folder, abs(int(at)), full=int(at) < 0)
    sys.addaudithook(steps)
    code = cli.main(list(arguments), layout=layout, services=lambda: Far(f"{folder}/manager"), steady_s=STEADY_S)
    print(f"steps={steps.count}\nmoves={' '.join(map(str, steps.moves))}")
    return code


if __name__ == "__main__":
    sys.path[:0] = [
        str(Path(__file__).parents[1]),
        os.environ.get("TESTS_RUNTIME") or str(Path(__file__).parents[2] / "runtime"),
    ]
    sys.exit(main(*sys.argv[1:]))
