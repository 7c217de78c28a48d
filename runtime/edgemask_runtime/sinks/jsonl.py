"""One JSON object a line, on standard output or appended to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import wall_clock
from edgemask_runtime.sinks import SinkContext


@dataclass(frozen=True)
class LinesSettings:
    """The file that lines are appended to; None is standard output."""

    path: Path | None = None


class JsonLines:
    """Every line is flushed, so that a reader sees an answer when it is given."""

    Settings = LinesSettings
    wants_pixels = False

    def __init__(self, settings: LinesSettings, context: SinkContext) -> None:
        self._target, self._pipeline = settings.path, context.pipeline
        self._file = sys.stdout if settings.path is None else _appended(settings.path)

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Write the answer as one line; a closed pipe stays a BrokenPipeError, for the exit code."""
        self._write(self.line(answer))

    def invalidate(self, reason: str) -> None:
        """Write a line that has a reason and no answer."""
        self._write(self.no_answer(reason))

    def line(self, answer: Answer) -> str:
        """Return the answer as JSON."""
        return json.dumps(answer.to_dict(), allow_nan=False)

    def no_answer(self, reason: str) -> str:
        """Return what says that there is no valid answer."""
        return json.dumps({"pipeline": self._pipeline, "invalid": reason, "at": wall_clock()})

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._target is not None:
            self._file.close()

    def _write(self, line: str) -> None:
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"{self._target or 'standard output'}: cannot write: {error.strerror}") from error


def _appended(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}") from error
