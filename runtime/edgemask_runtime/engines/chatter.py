"""LiteRT prints INFO lines straight on file descriptor 2 and has no setting against it: this drops only those."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

STDERR = 2


@contextmanager
def without_info() -> Iterator[None]:
    """Hold back what is written on descriptor 2 and pass on all but the INFO lines at the end."""
    with tempfile.TemporaryFile() as held:
        saved = os.dup(STDERR)
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(saved, STDERR)
            os.close(saved)
            _pass_on(held)


def _pass_on(held: IO[bytes]) -> None:
    held.seek(0)
    for line in held:
        if not line.startswith(b"INFO: "):
            os.write(STDERR, line)
