"""The bundle: a ZIP of stored entries whose bytes follow from its content alone, checked in full when it is opened."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgemask_runtime.archive import (
    EARLIEST,
    NAME,
    Archive,
    FileRecord,
    Kind,
    broken,
    file_records,
    open_archive,
    pack,
)
from edgemask_runtime.files import write_atomic
from edgemask_runtime.manifest import (
    EVIDENCE,
    MANIFEST,
    ConversionRecord,
    EntropyInput,
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
KIND = Kind("bundle", NAME, "`edgemask build RECIPE --target T` makes one", "copy the bundle again or build it again")

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
    def open(cls, path: Path | str, content: bytes | None = None, *, whole: bool = True) -> Bundle:
        """Check the whole archive and return it; UserError names the faulty file and what to do.

        Without `whole` each file is checked by `read` alone, for whoever opens what was just found whole.
        """
        where = Path(path)
        with _archive(where, content) as archive:
            manifest = Manifest.from_json(archive.text(MANIFEST), f"{where}: {MANIFEST}")
            evidence = parse(archive.text(EVIDENCE), f"{where}: {EVIDENCE}")
            if not isinstance(evidence, dict):
                raise archive.broken(f"{EVIDENCE} is no object")
            if whole:
                archive.check_files(manifest.files, {MANIFEST, EVIDENCE})
        return cls(where, manifest, evidence, content)

    def open_recogniser(self) -> Bundle | None:
        """The bundle inside this one, if it has one."""
        record = self.manifest.recogniser
        if record is None:
            return None
        inner = Bundle.open(self.path / record.file, self.read(record.file))
        if inner.manifest.recogniser is not None:
            raise broken(inner.path, KIND, "a recogniser has none of its own")
        evidence = self.evidence.get("recogniser", {})
        return replace(inner, evidence=evidence if isinstance(evidence, dict) else {})

    def read(self, name: str) -> bytes:
        """Return a file of the bundle, checked again: the archive may have changed since it was opened."""
        with _archive(self.path, self.content) as archive:
            return b"".join(archive.chunks(name, self.manifest.files[name]))


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
    pack(entries, content, source_date_epoch=source_date_epoch)
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


def _archive(path: Path, content: bytes | None) -> AbstractContextManager[Archive]:
    return open_archive(path, KIND, None if content is None else io.BytesIO(content))
