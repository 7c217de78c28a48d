"""Whether a release may come onto this device: its keys, and the facts of the device that a release asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.release import ReleaseManifest
from edgemask_runtime.trust import Keys, Signatures, read_public, verify

if TYPE_CHECKING:
    pass


def accept(layout: Layout, release: Release, order: Order) -> Keys:
    """The keys that this device believes from now on; UserError unless the release may come onto it."""
    keys = Keys.read(layout.keys)
    if order.enrol is not None:
        public = read_public(order.enrol)
        if public.development and not order.allow_development:
            raise UserError(f"{order.enrol}: a development key", "--allow-dev-key enrols it; never on a device in the field")
        keys = keys.enrol(public, "--enrol")
    verify(release.signed, Signatures(signatures=release.signatures), keys)
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
