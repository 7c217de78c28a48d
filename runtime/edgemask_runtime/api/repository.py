"""Loading and unloading by name: the repository extension, without its uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from edgemask_runtime.api.doors import version_of
from edgemask_runtime.remote import Remote
from edgemask_runtime.supervisor import Supervisor


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


class Installed:
    """The models of the device's settings: what is not among them cannot be loaded, whatever it is called."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def index(self) -> list[Entry]:
        """Every model of the settings."""
        return [_entry(name, remote) for name, remote in sorted(self._supervisor.models.items())]

    def load(self, name: str) -> None:
        """Start the model, or anew from the bundle that is installed now."""
        self._supervisor.load(name)

    def unload(self, name: str) -> None:
        """End the model's worker."""
        self._supervisor.unload(name)


def _entry(name: str, remote: Remote) -> Entry:
    if remote.trouble is None:
        return Entry(name, version_of(remote.about), "READY")
    return Entry(name, "", "UNAVAILABLE", remote.trouble)
