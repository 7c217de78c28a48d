"""Names inside a baked graph: `edgemask/2.jpeg/Round_7` belongs to step 2, the jpeg mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "edgemask/"


class Names:
    """Hands out fresh names under the current step."""

    def __init__(self) -> None:
        self._scope = f"{PREFIX}graph"
        self._count = 0

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name what is built inside after the step `name`."""
        outer, self._scope = self._scope, f"{PREFIX}{name}"
        try:
            yield
        finally:
            self._scope = outer

    def fresh(self, what: str) -> str:
        """A name not used before."""
        self._count += 1
        return f"{self._scope}/{what}_{self._count}"


def owner(name: str) -> str | None:
    """The step that a node or tensor belongs to ("2.jpeg"), None for the model's own."""
    return name.removeprefix(PREFIX).split("/")[0] if name.startswith(PREFIX) else None
