"""The key that a new device is told to believe: one that signed the release, checked here before it goes anywhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgemask.errors import UserError
from edgemask.signing import key_files, keys_folder
from edgemask_runtime.release import Release
from edgemask_runtime.trust import Keys, PublicKey, read_public, verify

DEVELOPMENT = "--allow-dev-key lets a device believe it, which is for your own desk; for the field: `edgemask keygen`"
FROM_ITS_MAKER = "--enrol NAME.pub, the public half of that key, from whoever made the release"
FROM_USER = "these are root's keys; yours: sudo ... --enrol ~/.config/edgemask/keys/NAME.pub"


@dataclass(frozen=True)
class Enrolment:
    """The key to enrol, which signed the release."""

    key: PublicKey


def enrolment_for(release: Release, enrol: Path | None = None, *, allow_development: bool = False) -> Enrolment:
    """The key in the file `enrol`, or else that of your own which signed the release; UserError where none did."""
    key = signer_of(release, enrol)
    if key is None:
        fault = unknown_signer(release, enrol)
        raise UserError(f"{release.path}: {fault.message}", fault.hint)
    if key.development and not allow_development:
        raise UserError(f"{release.path}: is signed by a development key, {key.id}", DEVELOPMENT)
    return Enrolment(key)


def signer_of(release: Release, enrol: Path | None = None) -> PublicKey | None:
    """The key in the file `enrol`, or else that of your own, which signed the release; None where none of them did.

    UserError for a signature of such a key that does not hold.
    """
    keys = Keys()
    for public in [read_public(enrol)] if enrol else [file.public for file in key_files()]:
        keys = keys if keys.find(public.id) else keys.enrol(public, "this machine")
    if not any(keys.find(one.key) for one in release.signatures.signatures):
        return None
    return verify(release.signed, release.signatures, keys).key


def unknown_signer(release: Release, enrol: Path | None = None) -> UserError:
    """What to tell where `signer_of` found nobody."""
    signers = ", ".join(one.key for one in release.signatures.signatures)
    if not signers:
        return UserError("is not signed", f"edgemask sign {release.path} --key NAME")
    if enrol is not None:
        return UserError(f"signed by {signers}, not by the key in {enrol}", FROM_ITS_MAKER)
    hint = FROM_USER if "SUDO_USER" in os.environ and os.geteuid() == 0 else FROM_ITS_MAKER
    return UserError(f"signed by {signers}; none of your keys in {keys_folder()} signed it", hint)
