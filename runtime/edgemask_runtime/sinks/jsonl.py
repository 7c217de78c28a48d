"""One JSON object a line, on standard output or appended to a file."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import wall_clock
from edgemask_runtime.sinks import ENDED, SinkContext
from edgemask_runtime.strict_json import between

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class LinesSettings:
    """The file that lines are appended to, None is standard output; `max_mb`: what it grows to before it is turned.

    A file that is full becomes `PATH.1`, in the place of the one before.
    """

    path: Path | None = None
    max_mb: float | None = field(default=None, metadata=between(0.001, 1_000_000))


def invalid_line(pipeline: str, reason: str) -> str:
    """JSON on one line that has a reason and no answer."""
    return json.dumps({"pipeline": pipeline, "invalid": reason, "at": wall_clock()})


class JsonLines:
    """Every line is written at once, whole or not at all, so that a reader sees an answer when it is given."""

    Settings = LinesSettings
    wants_pixels = False

    def __init__(self, settings: LinesSettings, context: SinkContext) -> None:
        self._pipeline = context.pipeline
        self._file = None if settings.path is None else _Appended(settings.path, settings.max_mb)

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Write the answer as one line; a closed pipe stays a BrokenPipeError, for the exit code."""
        self._write(self.line(answer))

    def invalidate(self, reason: str) -> None:
        """Write a line that has a reason and no answer; that a source has ended, the end of the lines says."""
        if reason != ENDED:
            self._write(self.no_answer(reason))

    def line(self, answer: Answer) -> str:
        """Return the answer as JSON."""
        return answer.to_json()

    def no_answer(self, reason: str) -> str:
        """Return what says that there is no valid answer."""
        return invalid_line(self._pipeline, reason)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file:
            self._file.close()

    def _write(self, line: str) -> None:
        if self._file:
            self._file.write(f"{line}\n".encode())
        else:
            _print(line)


class _Appended:
    """A file at the end of which lines are put; whoever moves it away, as logrotate does, gets a new one there."""

    def __init__(self, path: Path, max_mb: float | None) -> None:
        self._path = path
        self._limit = None if max_mb is None else int(max_mb * BYTES_PER_MB)
        self._number = self._opened()

    def write(self, line: bytes) -> None:
        """Append the line; UserError, and nothing of it in the file, when there is no room."""
        try:
            self._put(line)
        except OSError as error:
            raise UserError(f"{self._path}: cannot write: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._number)

    def _put(self, line: bytes) -> None:
        size = self._size()
        if self._limit is not None and 0 < size > self._limit - len(line):
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            size = self._size()
        written = os.write(self._number, line)
        if written < len(line):
            os.truncate(self._number, size)
            raise UserError(f"{self._path}: cannot write: no room for a whole line")

    def _size(self) -> int:
        """The size of the file that is now at the path; opened anew when it is another one."""
        ours = os.fstat(self._number)
        with suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), ours):
                return ours.st_size
        fresh = self._opened()
        os.close(self._number)
        self._number = fresh
        return os.fstat(fresh).st_size

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{self._path}: cannot write: {error.strerror}") from error


def _print(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"standard output: cannot write: {error.strerror}") from error
