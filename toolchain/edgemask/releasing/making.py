"""From built bundles to a signed release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemask import __version__
from edgemask.bundle import Built
from edgemask.errors import UserError
from edgemask.releasing.contents import Content, Tell, content_of
from edgemask.releasing.options import ReleaseOptions, source_date
from edgemask.releasing.settings import model_file
from edgemask.releasing.sizes import Sizes, sizes_of
from edgemask.report import table
from edgemask.signing import SigningKey, development_key, load, sign
from edgemask.target import Target, find_target
from edgemask_runtime.archive import file_records
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.bundle import payload_digest as bundle_digest
from edgemask_runtime.files import write_atomic
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.release import (
    SUFFIX,
    UNITS,
    ModelEntry,
    ReleaseManifest,
    payload_digest,
    write_release,
)
from edgemask_runtime.trust import Signatures

Ask = Callable[[str], str]
DEFAULTS = ReleaseOptions()
HEADING = "\n## Release\n\n"


@dataclass(frozen=True)
class Released:
    """A release on disk, and the key that signed it."""

    path: Path
    manifest: ReleaseManifest
    digest: str
    sizes: Sizes
    key: SigningKey


def release(
    built: Built, options: ReleaseOptions = DEFAULTS, *, tell: Tell = lambda _: None, ask: Ask | None = None
) -> Released:
    """Make the release of a built bundle, beside it; an older one is replaced once all of the new one is there.

    `tell` hears which wheel is being fetched; `ask` is asked for the passphrase of a key that has one. UserError: what
    the options state, settings that the device would refuse, a wheel that cannot be had, a key that cannot sign.
    """
    options.check()
    key = load(options.key, ask) if options.key else development_key()
    target = find_target(built.manifest.target)
    bundles = _bundles(built, options.also)
    content = content_of(target, bundles, options, tell)
    manifest = _manifest(target, [bundle.manifest for bundle in bundles.values()], options, content)
    path = built.bundle.with_suffix(SUFFIX)
    write_release(path, manifest, content.files, Signatures.from_bytes(sign(manifest.to_json().encode(), key)))
    made = Released(path, manifest, payload_digest(manifest), sizes_of(manifest), key)
    _add_to_report(built.report, made)
    return made


def _bundles(built: Built, also: Sequence[Path]) -> dict[str, Bundle]:
    """The bundles by name, the one that was built first."""
    bundles = {built.manifest.name: Bundle.open(built.bundle)}
    for path in also:
        bundle = Bundle.open(path)
        name, target = bundle.manifest.name, bundle.manifest.target
        if name in bundles:
            raise UserError(f"{path}: there is a bundle {name!r} in the release already", "`name` in the recipe")
        if target != built.manifest.target:
            hint = f"`edgemask build RECIPE --target {built.manifest.target}` makes one that fits"
            raise UserError(f"{path}: built for {target}, not {built.manifest.target}", hint)
        bundles[name] = bundle
    return bundles


def _manifest(
    target: Target, manifests: Sequence[Manifest], options: ReleaseOptions, content: Content
) -> ReleaseManifest:
    """What is signed, read as a device reads it: nothing is signed that nobody can open."""
    place = content.place
    manifest = ReleaseManifest(
        schema=1,
        name=manifests[0].name,
        version=options.shown_version(),
        serial=options.serial,
        min_serial=options.min_serial,
        date=source_date(),
        expires=options.expiry(),
        target=target.name,
        arch=place.arch,
        boards=place.boards,
        glibc=place.glibc,
        memory_mb=target.budget.memory_mb,
        environments=place.environments(),
        engine=manifests[0].engine,  # type: ignore[arg-type]
        models=_models(manifests),
        settings="settings.toml",
        units=tuple(sorted(name for name in content.files if name.startswith(UNITS))),
        keys=options.key_changes(),
        files=file_records(content.files),
        tools={"edgemask": __version__},
    )
    return ReleaseManifest.from_json(manifest.to_json())


def _models(manifests: Sequence[Manifest]) -> dict[str, ModelEntry]:
    return {manifest.name: ModelEntry(model_file(manifest.name), bundle_digest(manifest)) for manifest in manifests}


def _add_to_report(report: Path, made: Released) -> None:
    """The report tells of the release, too."""
    manifest = made.manifest
    facts = [
        f"`{made.path.name}`, serial {manifest.serial}, payload digest `{made.digest}`,",
        f"signed by {'the development key' if made.key.development else 'key'} `{made.key.public.id}`.",
    ]
    sizes = table(("what", "MB"), made.sizes.rows())
    before = report.read_text(encoding="utf-8").partition(HEADING)[0]
    text = f"{before}{HEADING}{' '.join(facts)}\n\n{sizes}\n"
    write_atomic(report, text.encode())
