"""What goes into a release beside its manifest and signature."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.errors import UserError
from edgemask.releasing.options import ReleaseOptions, source_date
from edgemask.releasing.place import Place, place_of
from edgemask.releasing.programs import edgemaskd
from edgemask.releasing.sbom import bill_of_materials
from edgemask.releasing.settings import check_settings, default_settings, extras_of, model_file, read_settings
from edgemask.releasing.units import units_for
from edgemask.releasing.wheel_facts import facts_of
from edgemask.target import Target
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.release import DBC, EVIDENCE, SBOM, SETTINGS, WHEELS

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Content:
    """The files by their name in the release, and the place that they are for."""

    files: dict[str, bytes | Path]
    place: Place


def content_of(target: Target, bundles: Mapping[str, Bundle], options: ReleaseOptions, tell: Tell) -> Content:
    """Gather all of it; UserError where something cannot be had or does not go together."""
    manifests = [bundle.manifest for bundle in bundles.values()]
    settings = read_settings(options.settings) if options.settings else default_settings(target, manifests)
    check_settings(settings, str(options.settings or SETTINGS), bundles)
    forms = {manifest.model.format for manifest in manifests}
    place = place_of(target, forms, extras_of(settings), offline=options.offline, tell=tell)
    files: dict[str, bytes | Path] = {model_file(name): bundle.path for name, bundle in bundles.items()}
    files |= {f"{WHEELS}{wheel.name}": wheel for wheel in place.all_wheels()}
    files |= {**units_for(target), SETTINGS: settings.encode(), **_dbc(bundles)}
    files[SBOM] = _sbom(bundles, place, options).encode()
    files[EVIDENCE] = (json.dumps(_evidence(bundles), sort_keys=True, indent=2) + "\n").encode()
    return Content(files, place)


def _dbc(bundles: Mapping[str, Bundle]) -> dict[str, bytes]:
    """The DBC of what may be sent on a CAN bus, if anything may."""
    senders = [bundle for bundle in bundles.values() if bundle.manifest.can]
    if len(senders) > 1:
        names = " and ".join(bundle.manifest.name for bundle in senders)
        raise UserError(f"{names} both state CAN messages", "one bundle of a release may; a DBC describes one sender")
    if not senders:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DBC
        edgemaskd(["dbc", str(senders[0].path), "--output", str(path)])
        return {DBC: path.read_bytes()}


def _sbom(bundles: Mapping[str, Bundle], place: Place, options: ReleaseOptions) -> str:
    name = next(iter(bundles))
    wheels = [facts_of(wheel) for wheel in place.all_wheels()]
    return bill_of_materials(name, options.shown_version(), source_date(), wheels, dict(_models(bundles)), place.system)


def _models(bundles: Mapping[str, Bundle]) -> list[tuple[str, Manifest]]:
    """Every model by name, those inside others too."""
    named = [(name, bundle.manifest) for name, bundle in bundles.items()]
    inner = [(f"{name}/recogniser", bundle.open_recogniser()) for name, bundle in bundles.items()]
    return named + [(name, bundle.manifest) for name, bundle in inner if bundle]


def _evidence(bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """What the building machine measured, without the probes, which each bundle has itself."""
    told = {
        name: {key: value for key, value in bundle.evidence.items() if key in ("parity", "audit", "metrics", "machine")}
        for name, bundle in bundles.items()
    }
    return {"schema": 1, "models": told}
