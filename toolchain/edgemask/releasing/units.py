"""The unit files that go along: the daemon's for the target's engines, under one name, and what belongs to all."""

from __future__ import annotations

from edgemask.target import Target, targets_folder
from edgemask_runtime.install.units import SYSUSERS
from edgemask_runtime.release import UNITS

DAEMON, KIND = "edgemaskd.service", "edgemaskd-"
SUFFIXES = (".service", SYSUSERS)


def units_for(target: Target) -> dict[str, bytes]:
    """The files by their name in the release; what an editor left beside them stays here."""
    found = [file for file in (targets_folder() / "units").iterdir() if file.name.endswith(SUFFIXES)]
    files = {file.name: file for file in found if file.name.startswith("edgemask")}
    daemon = files[f"{KIND}{target.unit}.service"].read_bytes()
    shared = {name: file.read_bytes() for name, file in files.items() if not name.startswith(KIND)}
    return {UNITS + name: content for name, content in {DAEMON: daemon, **shared}.items()}
