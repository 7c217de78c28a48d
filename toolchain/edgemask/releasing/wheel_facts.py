"""What a wheel says of itself: name, version, licence; and what it weighs."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

from edgemask.errors import UserError, one_line
from edgemask_runtime.archive import FileRecord, file_records

LICENCES = "License :: "
MAX_LICENCE_CHARS = 80
MAX_METADATA_BYTES = 1 << 22


@dataclass(frozen=True)
class WheelFacts:
    """A wheel; `expression` says whether `licence` is an SPDX expression, or only the words that its makers used."""

    file: str
    name: str
    version: str
    licence: str | None
    expression: bool
    record: FileRecord


def facts_of(wheel: Path) -> WheelFacts:
    """Read a wheel's METADATA; UserError where it has none."""
    try:
        about = _metadata(wheel)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel}: not a sound wheel: {one_line(error)}", f"rm {wheel}, and build again") from error
    licence, expression = _licence(about)
    record = file_records({wheel.name: wheel})[wheel.name]
    return WheelFacts(wheel.name, _normal(str(about["Name"])), str(about["Version"]), licence, expression, record)


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [entry] = [e for e in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", e.filename)]
        if entry.file_size > MAX_METADATA_BYTES:
            raise ValueError("its METADATA is larger than any")
        return Parser().parsestr(archive.read(entry).decode())


def _normal(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _licence(about: Message) -> tuple[str | None, bool]:
    if stated := about["License-Expression"]:
        return str(stated), True
    classifiers = (str(line) for line in about.get_all("Classifier") or ())
    named = {line.rpartition(" :: ")[2] for line in classifiers if line.startswith(LICENCES)} - {"OSI Approved"}
    if named:
        return " and ".join(sorted(named)), False
    # Why the first line: some put the whole text of their licence here.
    lines = str(about["License"] or "").strip().splitlines()
    return (lines[0][:MAX_LICENCE_CHARS] if lines else None), False
