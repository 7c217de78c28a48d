"""Settings that the owner gave with one version: while the other one runs they lie beside, under its slot's name.

They are moved by renaming alone, so that a file of the owner's stays the very file that it was.
"""

from __future__ import annotations

from pathlib import Path

from edgemask_runtime.files import read_bytes
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import SLOTS, Layout, SlotName, other
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.install.state import Pending, State
from edgemask_runtime.install.units import owners_settings

MAX_BYTES = 1 << 20


def read_changed(layout: Layout, path: Path | None) -> bytes | None:
    """The settings in a file; None where the owner gives none, or those that are in force already."""
    if path is None:
        return None
    given = read_bytes(path, limit_bytes=MAX_BYTES)
    same = owners_settings(layout) and layout.settings.is_file() and layout.settings.read_bytes() == given
    return None if same else given


def lay_beside(layout: Layout, slot: SlotName, settings: bytes | None) -> None:
    """Keep the settings for a version that does not run yet; where it has none, let nothing lie there."""
    if settings is None:
        durable.remove(layout.beside(slot))
        return
    durable.make_folder(layout.settings.parent)
    durable.write(layout.beside(slot), settings)


def settings_for(layout: Layout, slot: SlotName, *, parted: bool) -> Path:
    """What the daemon of a slot would run on that does not run now."""
    path = layout.beside(slot) if parted else layout.settings
    there = _is_there(path) if parted else owners_settings(layout)
    return path if there else Slot(layout.slot(slot)).settings


def owned(layout: Layout, to: SlotName) -> tuple[SlotName, ...]:
    """Which slots have settings of the owner's, before the switch to one of them begins."""
    beside = (to,) if _is_there(layout.beside(to)) else ()
    return (*beside, other(to)) if owners_settings(layout) else beside


def put_in_force(layout: Layout, slot: SlotName, own: tuple[SlotName, ...]) -> None:
    """Let the settings be those of this slot, and keep those of the other one beside.

    `own` is what `owned` said. Cut off anywhere it can be called again, for either slot.
    """
    left = other(slot)
    if left in own and not _is_there(layout.beside(left)) and owners_settings(layout):
        durable.move(layout.settings, layout.beside(left))
    if slot in own and _is_there(layout.beside(slot)):
        durable.move(layout.beside(slot), layout.settings)


def take_back(layout: Layout, pending: Pending) -> None:
    """Let the settings be those from before a switch."""
    if pending.own is not None:
        put_in_force(layout, other(pending.slot), pending.own)


def resume(layout: Layout, current: SlotName) -> bool:
    """Let no settings lie beside that belong to the version that runs: so they may where state.json was lost."""
    if not _is_there(layout.beside(current)):
        return False
    durable.move(layout.beside(current), layout.settings)
    return True


def tidy(layout: Layout, state: State) -> None:
    """Remove settings of versions that are gone, and what is half-written."""
    for slot in SLOTS:
        if not (state.parted and slot == state.previous):
            durable.remove(layout.beside(slot))
    for part in layout.settings.parent.glob(".edgemaskd.*.part"):
        durable.remove(part)


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
