"""Whether a release may come onto this device: its keys, and the facts of the device that a release asks for."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.install.state import State
from edgemask_runtime.release import Release, ReleaseManifest
from edgemask_runtime.trust import Keys, Signatures, check, check_fit, read_public, this_device, verify


@dataclass(frozen=True)
class Order:
    """What is to be installed: the release, its digest as whoever sent it states it, and a key to be believed.

    `encrypt` has the models encrypted, now and in every release after this one; `reset_keys` puts `enrol` in place of
    a keys.json that cannot be read, `settings` are the owner's for it.
    """

    release: Path
    sha256: str | None = None
    enrol: Path | None = None
    allow_development: bool = False
    encrypt: bool = False
    reset_keys: bool = False
    settings: Path | None = None


def accept(layout: Layout, state: State, order: Order) -> tuple[Release, Keys, tuple[str, ...]]:
    """The release, the keys that this device believes from now on, and what is to be said of the clock.

    UserError unless the release may come onto it; one that nobody signed whom it believes is not even read.
    """
    keys = _believed(layout, reset=order.reset_keys)
    if state.pending:
        # The changes of the release that runs, which could not be made yet.
        keys = keys.after(Slot(layout.slot(state.pending.slot)).manifest())
    if order.enrol is not None:
        public = read_public(order.enrol)
        if public.development and not order.allow_development:
            hint = "--allow-dev-key enrols it; never on a device in the field"
            raise UserError(f"{order.enrol}: a development key", hint)
        keys = keys.enrol(public, "--enrol")
    facts = this_device(state.floor, state.newest_time)
    bare = order.sha256 is not None and importlib.util.find_spec("cryptography") is None
    if bare and not _judges(layout, state):
        release = Release.open(order.release, partial(_vouched, keys=keys))
        keys.after(release.manifest)
        return release, keys, check_fit(release.manifest, facts)
    release = Release.open(order.release, partial(verify, keys=keys))
    return release, keys, check(release, keys, facts).notes


def _judges(layout: Layout, state: State) -> bool:
    """Whether a version is installed, and runs: it has all that checks signatures, and takes the next one in."""
    return state.current is not None and Slot(layout.slot(state.current)).has_installer()


def _vouched(_: bytes, signatures: Signatures, keys: Keys) -> None:
    """An install on a bare board, where nothing can check signatures yet, or any more: whoever sent the release has
    done so, and states its digest."""
    signers = [signature.key for signature in signatures.signatures]
    if not any(keys.find(signer) and signer not in keys.revoked for signer in signers):
        message = f"the release is signed by {', '.join(signers) or 'nobody'}, which is not enrolled here"
        raise UserError(message, "--enrol NAME.pub enrols the key that signed it")


def _believed(layout: Layout, *, reset: bool) -> Keys:
    """The keys of keys.json; none, in place of those that cannot be read, if that is wished for."""
    try:
        keys = Keys.read(layout.keys)
    except UserError:
        if reset:
            return Keys()
        raise
    if reset:
        hint = "leave it out: `edgemask-device keys` shows who is believed here"
        raise UserError(f"{layout.keys}: can be read, and --reset-keys is for one that cannot", hint)
    return keys


def write_keys(layout: Layout, keys: Keys) -> None:
    """Keep the keys, if they changed; a file that could not be read is kept beside them."""
    try:
        if keys == Keys.read(layout.keys):
            return
    except UserError:
        layout.keys.replace(layout.keys.with_suffix(".broken"))
    keys.write(layout.keys)
    durable.sync(layout.root)


def apply_changes(layout: Layout, manifest: ReleaseManifest) -> None:
    """Change the device's keys as a release says that passed its gate."""
    write_keys(layout, Keys.read(layout.keys).after(manifest))
