"""The release: what `edgemask build` makes for a board and `edgemask flash` takes there, one signed archive.

Only the standard library is needed: the first install on a board reads its release from the runtime's own wheel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from edgemask_runtime.archive import NAME, SHA256, Archive, FileRecord, Kind, file_records, open_archive, pack
from edgemask_runtime.files import replacing
from edgemask_runtime.moments import seconds
from edgemask_runtime.strict_json import LARGEST_EXACT, Faults, Rule, between, matching, parse, structure
from edgemask_runtime.trust.keyring import KEY_BYTES, KEY_ID, decoded
from edgemask_runtime.trust.signatures import MAX_SIGNATURES_BYTES, SIGNATURE_FILE, Signatures

SUFFIX = ".release"
MANIFEST = "release.json"
MAX_MANIFEST_BYTES = 1 << 20
"""Some 6,000 files: what no signature was checked of yet must not fill a board's memory."""
SETTINGS, SBOM, DBC, EVIDENCE = "settings.toml", "sbom.cdx.json", "edgemask.dbc", "evidence.json"
MODELS, WHEELS, UNITS = "models/", "wheels/", "units/"
BUNDLE_MANIFEST = "manifest.json"
PART = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}"
FOLDERS = f"({MODELS}|{WHEELS}|{UNITS})"
VERSION = r"[A-Za-z0-9][A-Za-z0-9 ._+~-]{0,63}"
PYTHON = r"3\.[0-9]{1,2}"
BOARD = r"[a-z0-9][a-z0-9._+-]*,[a-z0-9._+-]+"
HINT = "build the release again with `edgemask build`"
KIND = Kind(
    "release", f"{FOLDERS}?{PART}", "`edgemask build RECIPE --target T` makes one", "copy it again or build it again"
)
INNER = Kind("bundle", NAME, "", HINT)

Believe = Callable[[bytes, Signatures], object]
"""Raises UserError unless the signatures of release.json's bytes will do."""


def _is_moment(text: str) -> bool:
    try:
        return seconds(text) >= 0
    except ValueError:
        return False


def _all_match(pattern: str) -> dict[str, Rule]:
    return Rule(f"texts like {pattern}", lambda texts: all(re.fullmatch(pattern, text) for text in texts)).metadata


MOMENT_RULE = Rule("a moment in UTC: 2027-01-31T00:00:00Z", _is_moment).metadata
PUBLIC_KEYS = Rule(
    f"base64 of {KEY_BYTES} bytes each", lambda keys: all(decoded(key, KEY_BYTES) is not None for key in keys)
)


@dataclass(frozen=True)
class ModelEntry:
    """A bundle in the release, and the digest of its payload: of its manifest, which evidence is no part of."""

    file: str = field(metadata=matching(f"{MODELS}{NAME}"))
    payload: str = field(metadata=matching(SHA256))


@dataclass(frozen=True)
class Environment:
    """What the runtime needs under one version of Python: wheels of the release, packages of the board's own."""

    wheels: tuple[str, ...] = field(metadata=_all_match(f"{WHEELS}{PART}"))
    system: tuple[str, ...] = field(metadata=_all_match(NAME))


@dataclass(frozen=True)
class KeyChanges:
    """How the keys that a device trusts change with this release: raw public keys in Base64, ids of revoked ones."""

    add: tuple[str, ...] = field(default=(), metadata=PUBLIC_KEYS.metadata)
    revoke: tuple[str, ...] = field(default=(), metadata=_all_match(KEY_ID))


@dataclass(frozen=True, kw_only=True)
class ReleaseManifest:
    """What is signed: what the release is, where it may run, and the digest of every file in it.

    `boards` are "compatible" strings of device trees, none for any board; `glibc` is the lowest that the wheels run
    with, `memory_mb` what the daemon is given. `environments` has one entry for each version of Python ("3.11").
    `date` is SOURCE_DATE_EPOCH where that was set: no device's clock can be before it.
    """

    schema: Literal[1]
    name: str = field(metadata=matching(NAME))
    version: str = field(metadata=matching(VERSION))
    serial: int = field(metadata=between(1, LARGEST_EXACT))
    min_serial: int = field(metadata=between(1, LARGEST_EXACT))
    date: str | None = field(metadata=MOMENT_RULE)
    expires: str | None = field(metadata=MOMENT_RULE)
    target: str = field(metadata=matching(NAME))
    arch: Literal["any", "aarch64", "x86_64", "armv7l"]
    boards: tuple[str, ...] = field(metadata=_all_match(BOARD))
    glibc: str = field(metadata=matching(r"2\.[0-9]{1,3}"))
    memory_mb: int = field(metadata=between(1, 1 << 20))
    environments: dict[str, Environment]
    engine: Literal["onnxruntime", "litert", "tflite"]
    models: dict[str, ModelEntry]
    settings: Literal["settings.toml"]
    units: tuple[str, ...] = field(metadata=_all_match(f"{UNITS}{PART}"))
    keys: KeyChanges
    files: dict[str, FileRecord]
    tools: dict[str, str]

    @property
    def title(self) -> str:
        """The release in a few words."""
        return title(vars(self))

    def to_json(self) -> str:
        """The canonical text: sorted keys, ASCII, a newline at the end."""
        return _canonical(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST) -> ReleaseManifest:
        """Read and check the text; one UserError names every fault as `where: $.path: value; allowed; did you mean`."""
        faults = Faults(where)
        manifest: ReleaseManifest | None = structure(cls, parse(text, where, HINT), "$", faults)
        if manifest is not None:
            _check_together(manifest, faults)
        if manifest is None or faults:
            raise faults.error(HINT)
        return manifest


@dataclass(frozen=True)
class Release:
    """A release whose every byte is accounted for; whether its signatures hold is for `trust` to say.

    `signed` is release.json as it is in the archive.
    """

    path: Path
    manifest: ReleaseManifest
    signatures: Signatures
    signed: bytes

    @classmethod
    def open(cls, path: Path | str, believe: Believe | None = None) -> Release:
        """Check the whole archive and return it; UserError names the faulty file and what to do.

        `believe` is asked before anything in release.json is looked at.
        """
        where = Path(path)
        with open_archive(where, KIND) as archive:
            archive.check_canonical()
            text = archive.text(MANIFEST, limit_bytes=MAX_MANIFEST_BYTES)
            signed = archive.text(SIGNATURE_FILE, limit_bytes=MAX_SIGNATURES_BYTES)
            signatures = Signatures.from_bytes(signed.encode(), f"{where}: {SIGNATURE_FILE}")
            if believe:
                believe(text.encode(), signatures)
            manifest = ReleaseManifest.from_json(text, f"{where}: {MANIFEST}")
            if manifest.to_json() != text:
                raise archive.broken(f"{MANIFEST} says what it says in another way than releases do")
            archive.check_files(manifest.files, {MANIFEST, SIGNATURE_FILE})
            for model in manifest.models.values():
                _check_payload(archive, model, where)
        return cls(where, manifest, signatures, text.encode())

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's content, piece by piece, checked again: UserError at the end if the archive changed meanwhile."""
        with open_archive(self.path, KIND) as archive:
            yield from archive.chunks(name, self.manifest.files[name])

    def read(self, name: str) -> bytes:
        """A file's content, checked again."""
        return b"".join(self.chunks(name))


def title(stated: Mapping[str, Any]) -> str:
    """A release in a few words, of whatever states its name, version and serial."""
    return f"{stated['name']} {stated['version']} (serial {stated['serial']})"


def payload_digest(manifest: ReleaseManifest) -> str:
    """The sha256 of what a release holds, apart from what was measured on the machine that built it.

    Evidence is left out, and a model counts with the payload of its bundle instead of its file.
    """
    values = dataclasses.asdict(manifest)
    left_out = {EVIDENCE, *(model.file for model in manifest.models.values())}
    values["files"] = {name: record for name, record in values["files"].items() if name not in left_out}
    return hashlib.sha256(_canonical(values).encode()).hexdigest()


def pack_release(
    to: IO[bytes],
    manifest: ReleaseManifest,
    files: Mapping[str, bytes | Path],
    signatures: Signatures,
) -> None:
    """Write the archive: the same arguments give the same bytes on any machine.

    ValueError when the manifest's records are not those of `files`.
    """
    if file_records(files) != manifest.files:
        raise ValueError("the manifest's records are not those of the files")
    pack({**files, MANIFEST: manifest.to_json().encode(), SIGNATURE_FILE: signatures.to_bytes()}, to)


def write_release(
    path: Path,
    manifest: ReleaseManifest,
    files: Mapping[str, bytes | Path],
    signatures: Signatures,
) -> None:
    """Write what `pack_release` gives: the file at `path` is the old one or the whole new one."""
    with replacing(path) as file:
        pack_release(file, manifest, files, signatures)


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, indent=2, allow_nan=False) + "\n"


def _check_payload(archive: Archive, model: ModelEntry, path: Path) -> None:
    with open_archive(path / model.file, INNER, archive.open(model.file)) as inner:
        if hashlib.sha256(inner.text(BUNDLE_MANIFEST).encode()).hexdigest() != model.payload:
            raise archive.broken(f"{model.file} does not have the payload that is stated")


def _check_together(manifest: ReleaseManifest, faults: Faults) -> None:
    """Check what no field can know alone."""
    if manifest.min_serial > manifest.serial:
        faults.add("$.min_serial", f"value {manifest.min_serial}", allowed=f"1 to serial, {manifest.serial}")
    for path, named, pattern in (
        ("$.models", manifest.models, NAME),
        ("$.environments", manifest.environments, PYTHON),
    ):
        if not named:
            faults.add(path, "nothing in it", allowed="one or more")
        for name in named:
            if not re.fullmatch(pattern, name):
                faults.add(f"{path}.{name}", "not such a name", allowed=f"text like {pattern}")
    _check_files(manifest, faults)


def _check_files(manifest: ReleaseManifest, faults: Faults) -> None:
    """The files are those that something names, and whatever is named is among them, once."""
    wheels = {wheel for environment in manifest.environments.values() for wheel in environment.wheels}
    models = [model.file for model in manifest.models.values()]
    if len(set(models)) < len(models):
        faults.add("$.models", "two models have the same file")
    named = {SETTINGS, SBOM, EVIDENCE, *wheels, *models, *manifest.units}
    for name in sorted(named - manifest.files.keys()):
        faults.add(f"$.files.{name}", "missing")
    for name in sorted(manifest.files.keys() - named - {DBC}):
        faults.add(f"$.files.{name}", "nothing names it")
