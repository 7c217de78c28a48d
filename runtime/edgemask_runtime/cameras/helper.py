"""A helper process on the system's own Python, which has packages that no virtual environment has."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.handover import Handover
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format
from edgemask_runtime.frames import Shot

SYSTEM_PYTHON = Path("/usr/bin/python3")
PROGRAM = Path(__file__).with_name("producer.py")
ENDING_S = 2.0
ANSWER_S = 20.0


class HelperCamera:
    """Starts the helper and takes its frames; it is killed with the camera, and ends by itself if the daemon dies."""

    live = True
    fps = 0.0

    def __init__(self, where: str, frame: Format, timeout_s: float, python: Path, **options: Any) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _started(python, ours, theirs)
        self._handover = Handover(ours, where, frame, timeout_s, **options)

    def wait_for_offer(self) -> None:
        """Wait until it has a first frame. Why not later: starting takes seconds on a small board, and is no stall."""
        try:
            self._handover.open()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Shot]:
        """Give its frames; SourceLost with the helper's own words when there are no more."""
        try:
            yield from self._handover
        finally:
            self.close()

    def close(self) -> None:
        """End the iteration, and the helper."""
        self._handover.close()
        self._process.kill()
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired as error:
            raise SourceLost(f"the helper {self._process.pid} hangs in the kernel and cannot be killed") from error

    def answer(self) -> str:
        """What it says when it is only asked something."""
        return self._handover.answer()

    @property
    def lost(self) -> int:
        """Frames that the helper numbered and did not offer."""
        return self._handover.lost


def asked(kind: str, python: Path = SYSTEM_PYTHON) -> str:
    """The helper's answer to a question; UserError when it cannot be started."""
    with closing(HelperCamera(kind, Format(2, 2, "gray"), ANSWER_S, python, kind=kind)) as helper:
        return helper.answer()


def _started(python: Path, ours: socket.socket, theirs: socket.socket) -> subprocess.Popen[bytes]:
    # Why -I: the daemon's own environment and folders are not the system's.
    command = [os.fspath(python), "-I", os.fspath(PROGRAM), str(theirs.fileno())]
    try:
        # Why its errors go to ours: libcamera says there what it finds, and no password comes near it.
        return subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
    except OSError as error:
        ours.close()
        raise UserError(f"{python}: {error.strerror}", hint="python = PATH names the system's own Python") from error
