"""Whether a release may come onto a device: who signed it, when, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemask_runtime.errors import UserError
from edgemask_runtime.trust.clock import check_expiry
from edgemask_runtime.trust.facts import Facts
from edgemask_runtime.trust.keyring import EnrolledKey, Keys
from edgemask_runtime.trust.signatures import SIGN, verify

if TYPE_CHECKING:
    from edgemask_runtime.release import Release, ReleaseManifest

BUILD = "edgemask build RECIPE --target T"
TARGETS = f"`edgemask targets` lists the boards, `{BUILD}` builds for one"


@dataclass(frozen=True)
class Accepted:
    """The enrolled key that signed the release, and what should be said of it all the same."""

    key: EnrolledKey
    notes: tuple[str, ...] = ()


def check(release: Release, keys: Keys, facts: Facts) -> Accepted:
    """Return why the release may be installed here; UserError with the first reason why it may not.

    In this order: signature and revoked keys, changes of keys, expiry, architecture, board, Python, C library,
    memory, serial. Nothing of a release is believed before its signature.
    """
    manifest = release.manifest
    key = verify(release.signed, release.signatures, keys)
    _check_keys(manifest, key, keys)
    return Accepted(key, check_fit(manifest, facts))


def check_fit(manifest: ReleaseManifest, facts: Facts) -> tuple[str, ...]:
    """All but keys and signature: what should be said of the clock; UserError where the release is not for here."""
    notes = check_expiry(manifest, facts)
    _check_machine(manifest, facts)
    _check_software(manifest, facts)
    if manifest.serial < facts.floor:
        message = f"its serial is {manifest.serial}; this device takes {facts.floor} or above"
        hint = f"an older release cannot come back; build it with a higher serial: `{BUILD} --serial {facts.floor}`"
        raise UserError(f"{manifest.title}: {message}", hint)
    return notes


def _check_keys(manifest: ReleaseManifest, key: EnrolledKey, keys: Keys) -> None:
    if key.development and (manifest.keys.add or manifest.keys.revoke):
        message = f"{manifest.title} changes the device's keys and has a development signature only"
        raise UserError(message, f"sign it with a key for releases, too: {SIGN}")
    keys.after(manifest)


def _check_machine(manifest: ReleaseManifest, facts: Facts) -> None:
    if manifest.arch not in ("any", facts.arch):
        raise UserError(f"{manifest.title} is for {manifest.arch}; this device is {facts.arch}", TARGETS)
    if manifest.boards and not set(manifest.boards) & set(facts.boards):
        here = ", ".join(facts.boards) or "without a device tree"
        message = f"{manifest.title} is for {', '.join(manifest.boards)}; this board is {here}"
        raise UserError(message, TARGETS)
    if facts.memory_mb < manifest.memory_mb:
        message = f"{manifest.title} needs {manifest.memory_mb} MB of memory; this device has {facts.memory_mb}"
        raise UserError(message, f"a smaller model, or a board with more memory; {TARGETS}")


def _check_software(manifest: ReleaseManifest, facts: Facts) -> None:
    versions = manifest.environments
    if facts.python not in versions:
        message = f"{manifest.title} is for Python {', '.join(versions)}; this device has {facts.python}"
        raise UserError(message, f"an operating system with one of them, or another target; {TARGETS}")
    if facts.glibc is None:
        raise UserError(f"{manifest.title} needs glibc {manifest.glibc}; this system has another C library", TARGETS)
    if _parts(facts.glibc) < _parts(manifest.glibc):
        message = f"{manifest.title} needs glibc {manifest.glibc}; this system has {facts.glibc}"
        raise UserError(message, "a newer version of the operating system has it")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
