"""Small whole releases around the tiny bundle, with one wheel that is none: what they are is not what is tested."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgemask_runtime.archive import file_records
from edgemask_runtime.bundle import Bundle, payload_digest
from edgemask_runtime.release import (
    Environment,
    KeyChanges,
    ModelEntry,
    ReleaseManifest,
    write_release,
)
from edgemask_runtime.trust import Signatures

MODEL, WHEEL, UNIT = "models/tiny.edgemask", "wheels/tiny-1.0-py3-none-any.whl", "units/edgemaskd.service"
UNSIGNED = Signatures()


def files_around(bundle: Path) -> dict[str, bytes]:
    """What a release holds beside its manifest and signature."""
    return {
        MODEL: bundle.read_bytes(),
        WHEEL: b"not a wheel, " * 99,
        UNIT: b"[Service]\nType=notify\n",
        "settings.toml": b"schema = 1\n",
        "sbom.cdx.json": b"{}\n",
        "evidence.json": b"{}\n",
    }


def manifest_around(bundle: Path, files: dict[str, bytes], **changes: Any) -> ReleaseManifest:
    """The manifest of these files; `changes` outweigh it."""
    manifest = ReleaseManifest(
        schema=1,
        name="tiny",
        version="1.0",
        serial=3,
        min_serial=1,
        date=None,
        expires=None,
        target="host",
        arch="any",
        boards=(),
        glibc="2.28",
        memory_mb=64,
        environments={"3.11": Environment((WHEEL,), ())},
        engine="onnxruntime",
        models={"tiny": ModelEntry(MODEL, payload_digest(Bundle.open(bundle).manifest))},
        settings="settings.toml",
        units=(UNIT,),
        keys=KeyChanges(),
        files=file_records(files),
        tools={"edgemask": "0.1.0"},
    )
    return dataclasses.replace(manifest, **changes)


def write_tiny_release(path: Path, bundle: Path, signatures: Signatures = UNSIGNED, **changes: Any) -> Path:
    """A release of the bundle at `path`."""
    files = files_around(bundle)
    write_release(path, manifest_around(bundle, files, **changes), files, signatures)
    return path
