"""The key that a new device is told to believe: one that signed the release, checked here before it goes anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemask.errors import UserError
from edgemask.signing import key_files
from edgemask_runtime.release import Release
from edgemask_runtime.trust import Keys, PublicKey, read_public, verify

DEVELOPMENT = "--allow-dev-key lets a device believe it, which is for your own desk; for the field: `edgemask keygen`"


@dataclass(frozen=True)
class Enrolment:
    """The key to enrol, which signed the release."""

    key: PublicKey


def enrolment_for(release: Release, enrol: Path | None = None, *, allow_development: bool = False) -> Enrolment:
    """The key in the file `enrol`, or else that of your own which signed the release; UserError where none did."""
    offered = [read_public(enrol)] if enrol else [file.public for file in key_files()]
    keys = Keys()
    for key in offered:
        keys = keys.enrol(key, "this machine")
    key = verify(release.signed, release.signatures, keys).key
    if key.development and not allow_development:
        raise UserError(f"{release.path}: is signed by a development key, {key.id}", DEVELOPMENT)
    return Enrolment(key)
