"""An archive: a ZIP of stored entries whose bytes follow from its content alone, read with suspicion.

Only the standard library is needed: the first install on a board reads its release with this.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import time
import zipfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import sha256_of
from edgemask_runtime.strict_json import between, matching

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
SHA256 = r"[0-9a-f]{64}"
MAX_BYTES = 1 << 31
MAX_TEXT_BYTES = 1 << 24
MAX_ENTRIES = 4096
MAX_DIRECTORY_BYTES = 1 << 20
EARLIEST, LATEST = 315532800, 4354819198
REGULAR_FILE = 0o100644
UNIX, VERSION = 3, 20
UTF8_NAME = 0x800
CHUNK_BYTES = 1 << 20
# What zipfile and the decoding of its texts raise on broken or hostile bytes.
FAULTS = (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError, struct.error, OverflowError)
# APPNOTE.TXT 4.3.12, 4.3.15 and 4.3.16: an entry's record in the directory, the locator of ZIP64, the end.
RECORD, LOCATOR, END = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4sLQL"), struct.Struct("<4s4H2LH")
RECORD_MAGIC, LOCATOR_MAGIC, END_MAGIC = b"PK\1\2", b"PK\6\7", b"PK\5\6"


@dataclass(frozen=True)
class FileRecord:
    """A file of an archive: the digest and the size that it must have."""

    sha256: str = field(metadata=matching(SHA256))
    bytes: int = field(metadata=between(0, MAX_BYTES))


@dataclass(frozen=True)
class Kind:
    """What such an archive is called, the pattern of its entries' names, and how to come by one."""

    word: str
    names: str
    made_by: str
    mend: str


class Archive:
    """An open archive whose entries are plain: stored, named safely, each there once, none over another."""

    def __init__(self, opened: zipfile.ZipFile, file: IO[bytes], path: Path, kind: Kind) -> None:
        self._zip, self._file, self._path, self._kind = opened, file, path, kind
        self._check_entries()
        if sum(entry.file_size for entry in opened.infolist()) > file.seek(0, os.SEEK_END):
            raise self.broken("its entries overlap")

    @property
    def names(self) -> frozenset[str]:
        """The names of the entries."""
        return frozenset(self._zip.namelist())

    def broken(self, reason: str) -> UserError:
        """The error that says why the archive cannot be used."""
        return broken(self._path, self._kind, reason)

    def text(self, name: str, *, limit_bytes: int = MAX_TEXT_BYTES) -> str:
        """An entry's text; UserError where it is missing, no UTF-8 or larger than a text may be."""
        if name not in self.names:
            raise self.broken(f"{name} is missing")
        if self._zip.getinfo(name).file_size > limit_bytes:
            raise self.broken(f"{name} is larger than {limit_bytes} bytes")
        try:
            return self._zip.read(name).decode()
        except UnicodeDecodeError as error:
            raise self.broken(f"{name} is not UTF-8 text") from error

    def open(self, name: str) -> IO[bytes]:
        """An entry as a file that can be read and sought in."""
        return self._zip.open(name)

    def chunks(self, name: str, record: FileRecord) -> Iterator[bytes]:
        """An entry's content, piece by piece; UserError at the end if it is not the one that `record` states."""
        digest = hashlib.sha256()
        if name not in self.names or self._zip.getinfo(name).file_size != record.bytes:
            raise self.broken(f"{name} does not have the {record.bytes} bytes that are stated")
        with self._zip.open(name) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != record.sha256:
            raise self.broken(f"{name} does not have the digest that is stated")

    def check_files(self, records: Mapping[str, FileRecord], beside: Set[str]) -> None:
        """Check that the entries are those of `records` and those `beside` them, each of the size and digest stated."""
        listed = self.names - beside
        for name in sorted(listed ^ records.keys()):
            raise self.broken(f"{name} is {'not in the manifest' if name in listed else 'missing'}")
        for name, record in records.items():
            for _ in self.chunks(name, record):
                pass

    def check_canonical(self) -> None:
        """Check that the archive is, byte by byte, what `pack` makes of the entries: nothing is hidden between them."""
        entries, directory, offset = self._zip.infolist(), b"", 0
        for entry in entries:
            plain = _entry(entry.filename, EARLIEST)
            plain.CRC, plain.file_size, plain.compress_size = entry.CRC, entry.file_size, entry.file_size
            header = plain.FileHeader(zip64=False)
            self._file.seek(offset)
            if entry.header_offset != offset or self._file.read(len(header)) != header:
                raise self.broken(f"{entry.filename} has an unusual header")
            directory += _record(plain, offset)
            offset += len(header) + entry.file_size
        self._file.seek(offset)
        count = len(entries)
        end = END.pack(END_MAGIC, 0, 0, count, count, len(directory), offset, 0)
        if self._zip.namelist() != sorted(self.names) or self._file.read() != directory + end:
            raise self.broken("its directory is an unusual one")

    def _check_entries(self) -> None:
        entries = self._zip.infolist()
        if len(entries) > MAX_ENTRIES:
            raise self.broken(f"it has more than {MAX_ENTRIES} entries")
        for entry in entries:
            problem = _problem(entry, self._kind.names)
            if problem:
                raise self.broken(f"entry {entry.orig_filename!r} {problem}")
        names = {entry.filename for entry in entries}
        if len(names) < len(entries):
            raise self.broken("two entries have the same name")
        if folders := names & {str(parent) for name in names for parent in Path(name).parents}:
            raise self.broken(f"{min(folders)} is a file and a folder")


def broken(path: Path, kind: Kind, reason: str) -> UserError:
    """The error that says why the archive cannot be used."""
    return UserError(f"{path}: not a sound {kind.word}: {reason}", hint=kind.mend)


@contextmanager
def open_archive(path: Path, kind: Kind, file: IO[bytes] | None = None) -> Iterator[Archive]:
    """Open the archive in `file`, or at `path`, which messages name; UserError unless it is a plain one."""
    try:
        with path.open("rb") if file is None else file as opened:
            _check_end(opened, path, kind)
            with zipfile.ZipFile(opened) as archive:
                yield Archive(archive, opened, path, kind)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {kind.word}", hint=kind.made_by) from error
    except FAULTS as error:
        raise broken(path, kind, one_line(error)) from error


def pack(entries: Mapping[str, bytes | Path], to: IO[bytes], *, source_date_epoch: int = EARLIEST) -> None:
    """Write the archive of these contents, or of these files: the same content gives the same bytes on any machine."""
    with zipfile.ZipFile(to, "w", allowZip64=False) as archive:
        for name in sorted(entries):
            content = entries[name]
            if isinstance(content, bytes):
                archive.writestr(_entry(name, source_date_epoch), content)
                continue
            with content.open("rb") as source, archive.open(_entry(name, source_date_epoch), "w") as entry:
                shutil.copyfileobj(source, entry, CHUNK_BYTES)


def file_records(files: Mapping[str, bytes | Path]) -> dict[str, FileRecord]:
    """The records of these contents, or of these files."""
    return {name: _record_of(content) for name, content in files.items()}


def _record_of(content: bytes | Path) -> FileRecord:
    if isinstance(content, bytes):
        return FileRecord(hashlib.sha256(content).hexdigest(), len(content))
    return FileRecord(sha256_of(content), content.stat().st_size)


def _check_end(file: IO[bytes], path: Path, kind: Kind) -> None:
    """Refuse an end that would make zipfile search for another, or whose directory would fill the memory."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise UserError(f"{path}: larger than the {MAX_BYTES} bytes of a {kind.word}", kind.mend)
    file.seek(max(0, size - END.size - LOCATOR.size))
    tail = file.read()
    if len(tail) < END.size or not tail[-END.size :].startswith(END_MAGIC) or tail.startswith(LOCATOR_MAGIC):
        raise broken(path, kind, "it does not end as one does: the file is incomplete, or another kind of file")
    _, _, _, _, count, directory_bytes, _, _ = END.unpack(tail[-END.size :])
    if count > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise broken(path, kind, f"it has more than {MAX_ENTRIES} entries")


def _date(epoch_s: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(min(max(epoch_s, EARLIEST), LATEST))
    return moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec


def _entry(name: str, epoch_s: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _date(epoch_s))
    entry.compress_type = zipfile.ZIP_STORED
    entry.create_system = UNIX
    entry.create_version = entry.extract_version = VERSION
    entry.external_attr = REGULAR_FILE << 16
    return entry


def _record(entry: zipfile.ZipInfo, offset: int) -> bytes:
    """An entry's record in the directory, as zipfile writes it for such entries."""
    year, month, day, hour, minute, second = entry.date_time
    date, clock = (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
    made_by, name = UNIX << 8 | VERSION, entry.filename.encode("ascii")
    sizes = (entry.CRC, entry.compress_size, entry.file_size, len(name), 0, 0, 0, 0, entry.external_attr, offset)
    return RECORD.pack(RECORD_MAGIC, made_by, VERSION, 0, 0, clock, date, *sizes) + name


def _problem(entry: zipfile.ZipInfo, names: str) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    problems = {
        "has an unsafe name": entry.filename != entry.orig_filename or not re.fullmatch(names, entry.filename),
        "is not stored plainly": entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size,
        "is encrypted or streamed": bool(entry.flag_bits & ~UTF8_NAME),
        "is no regular file": kind not in (0, stat.S_IFREG),
    }
    return next((problem for problem, found in problems.items() if found), None)
