"""Whether a release may come onto this device: its keys, and the facts of the device that a release asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.release import Release, ReleaseManifest
from edgemask_runtime.trust import Keys, read_public, verify


@dataclass(frozen=True)
class Order:
    """What is to be installed: the release, its digest as whoever sent it states it, and a key to be believed."""

    release: Path
    sha256: str | None = None
    enrol: Path | None = None
    allow_development: bool = False


def accept(layout: Layout, release: Release, order: Order) -> Keys:
    """The keys that this device believes from now on; UserError unless the release may come onto it."""
    keys = Keys.read(layout.keys)
    if order.enrol is not None:
        public = read_public(order.enrol)
        if public.development and not order.allow_development:
            hint = "--allow-dev-key enrols it; never on a device in the field"
            raise UserError(f"{order.enrol}: a development key", hint)
        keys = keys.enrol(public, "--enrol")
    verify(release.signed, release.signatures, keys)
    return keys


def write_keys(layout: Layout, keys: Keys) -> None:
    """Keep the keys, if they changed."""
    if keys != Keys.read(layout.keys):
        keys.write(layout.keys)
        durable.sync(layout.root)


def changed_keys(keys: Keys, manifest: ReleaseManifest) -> Keys:
    """The keys after this release; UserError where its changes are not possible here."""
    return keys.after(manifest)


def apply_changes(layout: Layout, manifest: ReleaseManifest) -> None:
    """Change the device's keys as a release says that passed its gate."""
    write_keys(layout, changed_keys(Keys.read(layout.keys), manifest))
