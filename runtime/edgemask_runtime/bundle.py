"""The bundle: a ZIP of stored entries whose bytes follow from its content alone, checked in full when it is opened."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import write_atomic
from edgemask_runtime.manifest import (
    EVIDENCE,
    MANIFEST,
    NAME,
    ConversionRecord,
    EntropyInput,
    FileRecord,
    FrameInput,
    KeyInput,
    Manifest,
    ModelRecord,
    OutputRecord,
    PrecisionRecord,
    ProofRecord,
    RecogniserRecord,
    SourceRecord,
    StepRecord,
    payload_digest,
)
from edgemask_runtime.strict_json import parse

__all__ = [
    "SUFFIX",
    "Bundle",
    "ConversionRecord",
    "EntropyInput",
    "FileRecord",
    "FrameInput",
    "KeyInput",
    "Manifest",
    "ModelRecord",
    "OutputRecord",
    "PrecisionRecord",
    "ProofRecord",
    "RecogniserRecord",
    "SourceRecord",
    "StepRecord",
    "file_records",
    "pack_bundle",
    "payload_digest",
    "write_bundle",
]

SUFFIX = ".edgemask"
MAX_ARCHIVE_BYTES = 1 << 31
MAX_TEXT_BYTES = 1 << 24
EARLIEST, LATEST = 315532800, 4354819198
REGULAR_FILE = 0o100644
UNIX = 3
UTF8_NAME = 0x800
CHUNK_BYTES = 1 << 20
# What zipfile and the decoding of its texts raise on broken or hostile bytes.
ZIP_FAULTS = (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError, struct.error, OverflowError)

Evidence = dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: every file in it has the size and digest that its manifest states.

    `content` is the archive itself where it lies inside another bundle, and `path` then only names it.
    """

    path: Path
    manifest: Manifest
    evidence: Evidence
    content: bytes | None = None

    @classmethod
    def open(cls, path: Path | str, content: bytes | None = None) -> Bundle:
        """Check the whole archive and return it; UserError names the faulty file and what to do."""
        where = Path(path)
        with _archive(where, content) as archive:
            _check_entries(archive, where)
            _check_overlap(archive, where, where.stat().st_size if content is None else len(content))
            manifest = Manifest.from_json(_text(archive, MANIFEST, where), f"{where}: {MANIFEST}")
            evidence = parse(_text(archive, EVIDENCE, where), f"{where}: {EVIDENCE}")
            if not isinstance(evidence, dict):
                raise _broken(where, f"{EVIDENCE} is no object")
            _check_files(archive, manifest, where)
        return cls(where, manifest, evidence, content)

    def open_recogniser(self) -> Bundle | None:
        """The bundle inside this one, if it has one."""
        record = self.manifest.recogniser
        if record is None:
            return None
        inner = Bundle.open(self.path / record.file, self.read(record.file))
        if inner.manifest.recogniser is not None:
            raise _broken(inner.path, "a recogniser has none of its own")
        evidence = self.evidence.get("recogniser", {})
        return replace(inner, evidence=evidence if isinstance(evidence, dict) else {})

    def read(self, name: str) -> bytes:
        """Return a file of the bundle, checked again: the archive may have changed since it was opened."""
        with _archive(self.path, self.content) as archive:
            content = archive.read(name)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name].sha256:
            raise _broken(self.path, f"{name} does not have the digest that the manifest states")
        return content


def file_records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Return the manifest's `files` for these contents."""
    return {name: FileRecord(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}


def pack_bundle(
    manifest: Manifest,
    files: Mapping[str, bytes],
    evidence: Mapping[str, Any],
    *,
    source_date_epoch: int = EARLIEST,
) -> bytes:
    """The archive: the same arguments give the same bytes on any machine.

    ValueError when the manifest's records are not those of `files`.
    """
    if file_records(files) != manifest.files:
        raise ValueError("the manifest's records are not those of the files")
    texts = {MANIFEST: manifest.to_json(), EVIDENCE: json.dumps(evidence, sort_keys=True, indent=2) + "\n"}
    entries = {**files, **{name: text.encode() for name, text in texts.items()}}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(entries):
            archive.writestr(_entry(name, source_date_epoch), entries[name])
    return content.getvalue()


def write_bundle(
    path: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    evidence: Mapping[str, Any],
    *,
    source_date_epoch: int = EARLIEST,
) -> None:
    """Write what `pack_bundle` gives."""
    write_atomic(path, pack_bundle(manifest, files, evidence, source_date_epoch=source_date_epoch))


def _date(epoch_s: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(min(max(epoch_s, EARLIEST), LATEST))
    return moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec


def _entry(name: str, epoch_s: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _date(epoch_s))
    entry.compress_type = zipfile.ZIP_STORED
    entry.create_system = UNIX
    entry.external_attr = REGULAR_FILE << 16
    return entry


@contextmanager
def _archive(path: Path, content: bytes | None = None) -> Iterator[zipfile.ZipFile]:
    try:
        if content is None and path.stat().st_size > MAX_ARCHIVE_BYTES:
            raise UserError(f"{path}: larger than the {MAX_ARCHIVE_BYTES} bytes of a bundle")
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such bundle", hint="`edgemask build RECIPE --target T` makes one") from error
    except ZIP_FAULTS as error:
        raise _broken(path, one_line(error)) from error


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a sound bundle: {reason}", hint="copy the bundle again or build it again")


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    for entry in entries:
        problem = _problem(entry)
        if problem:
            raise _broken(path, f"entry {entry.orig_filename!r} {problem}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise _broken(path, "two entries have the same name")


def _check_overlap(archive: zipfile.ZipFile, path: Path, size: int) -> None:
    if sum(entry.file_size for entry in archive.infolist()) > size:
        raise _broken(path, "its entries overlap")


def _problem(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    problems = {
        "has an unsafe name": entry.filename != entry.orig_filename or not re.fullmatch(NAME, entry.filename),
        "is not stored plainly": entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size,
        "is encrypted or streamed": bool(entry.flag_bits & ~UTF8_NAME),
        "is no regular file": kind not in (0, stat.S_IFREG),
    }
    return next((problem for problem, found in problems.items() if found), None)


def _text(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    if name not in archive.namelist():
        raise _broken(path, f"{name} is missing")
    if archive.getinfo(name).file_size > MAX_TEXT_BYTES:
        raise _broken(path, f"{name} is larger than {MAX_TEXT_BYTES} bytes")
    return archive.read(name).decode()


def _check_files(archive: zipfile.ZipFile, manifest: Manifest, path: Path) -> None:
    names = set(archive.namelist()) - {MANIFEST, EVIDENCE}
    for name in sorted(names ^ manifest.files.keys()):
        raise _broken(path, f"{name} is {'not in the manifest' if name in names else 'missing'}")
    for name, record in manifest.files.items():
        if archive.getinfo(name).file_size != record.bytes:
            raise _broken(path, f"{name} does not have the {record.bytes} bytes that the manifest states")
        with archive.open(name) as file:
            if _digest(file) != record.sha256:
                raise _broken(path, f"{name} does not have the digest that the manifest states")


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
