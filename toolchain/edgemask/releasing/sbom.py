"""The bill of materials of a release, in CycloneDX 1.6: every wheel and model with version, licence and digest."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from edgemask import __version__
from edgemask.releasing.wheel_facts import WheelFacts
from edgemask_runtime.manifest import Manifest

ROOT = "release"


def bill_of_materials(
    name: str,
    version: str,
    date: str | None,
    wheels: Iterable[WheelFacts],
    models: Mapping[str, Manifest],
    system: Iterable[str],
) -> str:
    """The text; it follows from its arguments alone. `system`: packages that the board brings itself."""
    parts = [
        *(_wheel(wheel) for wheel in sorted(wheels, key=lambda wheel: wheel.file)),
        *(_model(key, models[key]) for key in sorted(models)),
        *(_from_the_board(package) for package in sorted(set(system))),
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(name, version, date),
        "components": parts,
        "dependencies": [
            {"ref": ROOT, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    return json.dumps({**document, "serialNumber": f"urn:uuid:{serial}"}, sort_keys=True, indent=2) + "\n"


def _metadata(name: str, version: str, date: str | None) -> dict[str, Any]:
    made = {"type": "application", "name": "edgemask", "version": __version__}
    about: dict[str, Any] = {
        "component": {"type": "firmware", "bom-ref": ROOT, "name": name, "version": version},
        "tools": {"components": [made]},
        "lifecycles": [{"phase": "build"}],
    }
    return about | ({"timestamp": date} if date else {})


def _wheel(wheel: WheelFacts) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": wheel.file,
        "name": wheel.name,
        "version": wheel.version,
        "purl": f"pkg:pypi/{wheel.name}@{wheel.version}?file_name={wheel.file}",
        "hashes": [{"alg": "SHA-256", "content": wheel.record.sha256}],
        "licenses": _licences(wheel),
    }


def _licences(wheel: WheelFacts) -> list[dict[str, Any]]:
    declared = {"acknowledgement": "declared"}
    if wheel.licence is None:
        return []
    if wheel.expression:
        return [{"expression": wheel.licence, **declared}]
    return [{"license": {"name": wheel.licence, **declared}}]


def _model(name: str, manifest: Manifest) -> dict[str, Any]:
    """The baked file; the trained model that it was made of is its ancestor."""
    source, file = manifest.model.source, manifest.files[manifest.model.file]
    ancestor = {
        "type": "machine-learning-model",
        "name": source.file,
        "hashes": [{"alg": "SHA-256", "content": source.sha256}],
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model/{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "pedigree": {"ancestors": [ancestor]},
    }


def _from_the_board(package: str) -> dict[str, Any]:
    note = {"name": "edgemask:from", "value": "the board's own system; in no file of the release"}
    return {"type": "library", "bom-ref": f"system/{package}", "name": package, "properties": [note]}
