"""A slot: one release, unpacked. What is in it counts once complete.json is, which is written last."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes, sha256_of
from edgemask_runtime.install import durable
from edgemask_runtime.release import MANIFEST, SETTINGS, ReleaseManifest
from edgemask_runtime.strict_json import Faults, known, parse, structure

COMPLETE = "complete.json"
VENV = "venv"
MAX_TEXT_BYTES = 1 << 24
LIMIT_S = 120
VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


@dataclass(frozen=True)
class Door:
    """Where the daemon's HTTP server can be asked from this machine; `certified` if it answers to clients that have a
    certificate alone."""

    host: str
    port: int
    tls: bool
    certified: bool = False


@dataclass(frozen=True)
class WarmModel:
    """A model as it ran in the warm-up."""

    engine: str
    provider: str
    digest: str


@dataclass(frozen=True)
class Warm:
    """What the warm-up found: the models by name, and the door if the settings have one that can be asked."""

    models: dict[str, WarmModel] = field(default_factory=dict)
    door: Door | None = None


@dataclass(frozen=True)
class Completed:
    """complete.json: the digest of the slot's release.json, the Python of its environment, the warm-up, and the sha256
    of each model as it lies there encrypted, if it is."""

    schema: Literal[1]
    release: str
    python: str
    at: str
    warm: Warm
    sealed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """A slot's folder and what is to be known of it."""

    folder: Path

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        return self.folder / VENV / "bin"

    @property
    def settings(self) -> Path:
        """The settings that its release brought."""
        return self.folder / SETTINGS

    def completed(self) -> Completed | None:
        """What complete.json says; None where the slot is not complete."""
        try:
            text = read_bytes(self.folder / COMPLETE, limit_bytes=MAX_TEXT_BYTES).decode()
            faults = Faults(COMPLETE)
            completed: Completed | None = structure(Completed, known(Completed, parse(text, COMPLETE)), "$", faults)
            return completed if completed and not faults and completed.release == self.digest() else None
        except (UserError, UnicodeDecodeError):
            return None

    def is_encrypted(self) -> bool:
        """Whether its models lie there encrypted."""
        completed = self.completed()
        return completed is not None and bool(completed.sealed)

    def digest(self) -> str:
        """The sha256 of its release.json, which names all else."""
        return hashlib.sha256(self._signed()).hexdigest()

    def manifest(self) -> ReleaseManifest:
        """Its release."""
        return ReleaseManifest.from_json(self._signed().decode(errors="replace"), f"{self.folder / MANIFEST}")

    def has_python(self) -> bool:
        """Whether the Python that its environment was made of is there: an upgrade of the system takes it away."""
        completed = self.completed()
        return completed is not None and _said(self.programs / "python", "-I", "-c", VERSION) == completed.python

    def has_installer(self) -> bool:
        """Whether its own `edgemask-device` runs, and so can judge the next release."""
        return _said(self.programs / "edgemask-device", "--version") is not None

    def complete(self, completed: Completed) -> None:
        """Say that all of it is there and on the disk."""
        durable.sync_tree(self.folder)
        durable.write(self.folder / COMPLETE, (json.dumps(asdict(completed), indent=2) + "\n").encode())

    def clear(self) -> None:
        """Remove all of it; a slot that is half removed is not complete."""
        durable.remove(self.folder / COMPLETE)
        durable.remove_tree(self.folder)

    def altered(self) -> str | None:
        """The first file of the release that is not as it was; None where all are."""
        manifest, completed = self.manifest(), self.completed()
        digests = {name: manifest.files[name].sha256 for name in kept(manifest)}
        digests |= completed.sealed if completed else {}
        return next((name for name, digest in digests.items() if not _has(self.folder / name, digest)), None)

    def _signed(self) -> bytes:
        return read_bytes(self.folder / MANIFEST, limit_bytes=MAX_TEXT_BYTES)


def kept(manifest: ReleaseManifest) -> list[str]:
    """The files of a release that a slot keeps as they are: all but wheels."""
    wheels = {wheel for environment in manifest.environments.values() for wheel in environment.wheels}
    return sorted(manifest.files.keys() - wheels)


def _said(program: Path, *words: str) -> str | None:
    """What a program of a slot prints; None where it does not run."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run([str(program), *words], timeout=LIMIT_S, check=False, **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()


def _has(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False
