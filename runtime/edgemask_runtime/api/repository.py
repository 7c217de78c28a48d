"""Loading and unloading by name: the repository extension, without its uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Entry:
    """A bundle that is installed, and whether its model is loaded; `reason` says why not."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
    reason: str = ""


class Repository(Protocol):
    """What knows the installed bundles and may load them; names are all that a client can give."""

    def index(self) -> list[Entry]:
        """Every installed bundle."""

    def load(self, name: str) -> None:
        """Load the bundle of that name, or again if it is loaded; UserError when there is none or it does not run."""

    def unload(self, name: str) -> None:
        """Let go of the model of that name; UserError when it is not loaded."""
