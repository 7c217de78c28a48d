"""What is being fetched, on standard error: one line that changes on a terminal, a line each elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLEAR = "\r\033[K"


@contextmanager
def fetching() -> Iterator[Callable[[str], None]]:
    """A function that is told what is being fetched."""
    live = sys.stderr.isatty()

    def tell(what: str) -> None:
        print(f"{CLEAR if live else ''}fetching {what}", end="" if live else "\n", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if live:
            print(CLEAR, end="", file=sys.stderr, flush=True)
