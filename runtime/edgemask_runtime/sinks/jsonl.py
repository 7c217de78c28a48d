"""One JSON object a line, on standard output or appended to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO

from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError


class JsonLines:
    """Every line is flushed, so that a reader sees an answer when it is given."""

    def __init__(self, target: Path | None) -> None:
        self._target = target
        self._file = sys.stdout if target is None else _appended(target)

    def write(self, answer: Answer) -> None:
        """Write the answer as one line; a closed pipe stays a BrokenPipeError, for the exit code."""
        try:
            self._file.write(self.line(answer) + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"{self._target or 'standard output'}: cannot write: {error.strerror}") from error

    def line(self, answer: Answer) -> str:
        """Return the answer as JSON."""
        return json.dumps(answer.to_dict(), allow_nan=False)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._target is not None:
            self._file.close()


def _appended(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}") from error
