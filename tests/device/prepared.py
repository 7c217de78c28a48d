"""Releases signed by a key of this machine, which the tests put onto cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.releases import WHEEL, files_around, manifest_around

from edgemask.device.enrolment import Enrolment, enrolment_for
from edgemask.signing import KeyFile, keygen, load, sign
from edgemask_runtime.archive import file_records
from edgemask_runtime.release import Environment, Release, write_release
from edgemask_runtime.trust import Signatures

RUNTIME = "wheels/edgemask_runtime-0.1.0-py3-none-any.whl"


def signed_release(path: Path, bundle: Path, key: str | Path, runtime: bytes = b"a wheel", **changes: Any) -> Release:
    """A release of the bundle with the runtime's wheel, signed by a key of the folder of keys."""
    files = {**files_around(bundle), RUNTIME: runtime}
    environments = {version: Environment((WHEEL, RUNTIME), ()) for version in ("3.11", "3.13")}
    manifest = manifest_around(bundle, files, **{"environments": environments, **changes})
    assert file_records(files) == manifest.files
    write_release(path, manifest, files, Signatures.from_bytes(sign(manifest.to_json().encode(), load(key))))
    return Release.open(path)


def own_key(monkeypatch: Any, folder: Path) -> KeyFile:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return keygen()


def enrolled(release: Release) -> Enrolment:
    return enrolment_for(release)
