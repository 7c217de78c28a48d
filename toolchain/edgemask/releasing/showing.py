"""A release as people and scripts read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemask.release_signatures import Signed, who_signed
from edgemask.releasing.making import Released
from edgemask.releasing.sizes import Sizes, sizes_of
from edgemask_runtime.release import Release, ReleaseManifest, payload_digest
from edgemask_runtime.trust import Keys, PublicKey, verify

FORMAT = "release"


def inspected(path: Path, key: PublicKey | None = None) -> dict[str, Any]:
    """A release, checked in full, as plain data; its signatures are checked with your keys, which are no device's.

    UserError unless `key`, if one is given, signed it.
    """
    release = Release.open(path)
    if key:
        verify(release.signed, release.signatures, Keys().enrol(key, "--key"))
    return {
        "file": str(path),
        "format": FORMAT,
        "bytes": path.stat().st_size,
        **_values(release.manifest),
        "signatures": [asdict(one) for one in who_signed(release, [key] if key else [])],
    }


def inspected_text(found: Mapping[str, Any]) -> str:
    """What `inspected` found, for reading."""
    sizes = Sizes(**{key: value for key, value in found["sizes"].items() if key != "without_wheels"})
    what = f"release {found['version']} of {found['name']} for {found['target']}"
    lines = [
        f"{found['file']}: {what}, {found['bytes']:,} bytes",
        f"serial  {found['serial']}; a device that runs it takes {found['min_serial']} or later",
        f"date    {found['date'] or 'not stated'}; expires {found['expires'] or 'never'}",
        f"boards  {found['arch']}, {', '.join(found['boards']) or 'any board'}, glibc {found['glibc']} or later",
        *_environments(found["environments"]),
        *(f"model   {name}: payload {model['payload']}" for name, model in found["models"].items()),
        *(f"keys    devices add {key}" for key in found["keys"]["add"]),
        *(f"keys    devices revoke {key}" for key in found["keys"]["revoke"]),
        *(f"signed  by {Signed(**one)}" for one in found["signatures"]),
        f"digest  {found['payload_digest']}",
    ]
    lines += ["not signed: no device takes it; `edgemask sign` signs it"] if not found["signatures"] else []
    return "\n".join([*lines, "", *size_lines(sizes)])


def released_values(made: Released) -> dict[str, Any]:
    """What was made, as plain data."""
    key = {"id": made.key.public.id, "name": made.key.name, "development": made.key.development}
    return {"file": str(made.path), **_values(made.manifest), "signed_by": key}


def released_text(made: Released) -> str:
    """What was made, for reading."""
    key = made.key
    signed = f"by key {key.public.id} ({key.name})"
    if key.development:
        signed = f"by the development key {key.public.id}, for devices with --allow-dev-key; others: --key NAME"
    lines = [
        *size_lines(made.sizes),
        "",
        f"release {made.path} (serial {made.manifest.serial})",
        f"digest  {made.digest} (payload of the release)",
        f"signed  {signed}",
    ]
    return "\n".join(lines)


def size_lines(sizes: Sizes) -> list[str]:
    """What takes how much, in columns."""
    rows = sizes.rows()
    width = max(len(what) for what, _ in rows)
    return [f"{what:{width}}  {size:>8} MB" for what, size in rows]


def _values(manifest: ReleaseManifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "serial": manifest.serial,
        "min_serial": manifest.min_serial,
        "date": manifest.date,
        "expires": manifest.expires,
        "target": manifest.target,
        "arch": manifest.arch,
        "boards": list(manifest.boards),
        "glibc": manifest.glibc,
        "environments": {
            python: {"wheels": len(environment.wheels), "system": list(environment.system)}
            for python, environment in manifest.environments.items()
        },
        "models": {name: {"file": model.file, "payload": model.payload} for name, model in manifest.models.items()},
        "keys": {"add": list(manifest.keys.add), "revoke": list(manifest.keys.revoke)},
        "payload_digest": payload_digest(manifest),
        "sizes": sizes_of(manifest).to_json(),
    }


def _environments(environments: Mapping[str, Any]) -> Iterable[str]:
    for python, environment in environments.items():
        own = ", ".join(environment["system"])
        yield f"Python  {python}: {environment['wheels']} wheels{f', and the board its own {own}' if own else ''}"
