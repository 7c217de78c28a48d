"""Install a release, or go back to the one before: check, unpack, warm up, switch."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import replace
from typing import Any

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import sha256_of
from edgemask_runtime.install import clock, own_settings
from edgemask_runtime.install.card import forget_card
from edgemask_runtime.install.doors import door_now
from edgemask_runtime.install.gate import pass_gate
from edgemask_runtime.install.layout import SlotName, other
from edgemask_runtime.install.lock import locked
from edgemask_runtime.install.proving import check_units, prove_installer
from edgemask_runtime.install.recovery import recover
from edgemask_runtime.install.sealing import seal_models
from edgemask_runtime.install.slots import Completed, Slot, Warm
from edgemask_runtime.install.state import Failure, State, read_state, write_state
from edgemask_runtime.install.status import slot_summary
from edgemask_runtime.install.switching import Device, finish, switch, title_of
from edgemask_runtime.install.trusting import Order, accept, write_keys
from edgemask_runtime.install.units import link_all
from edgemask_runtime.install.unpacking import check_space, python_version, unpack
from edgemask_runtime.install.warming import warm_up
from edgemask_runtime.release import Release


def install(device: Device, order: Order) -> dict[str, Any]:
    """Install the release and return what runs now. The same release again only makes sure that it runs.

    UserError: refused, nothing changed. Returned: it did not run, the version before does again.
    """
    with locked(device.layout, "install"):
        recover(device)
        state = read_state(device.layout)
        device.step("check")
        _check_digest(order)
        release, keys, notes = accept(device.layout, state, order)
        check_units(release.manifest)
        for note in notes:
            device.step(note)
        settings = own_settings.read_changed(device.layout, order.settings)
        encrypted = state.current is not None and device.slot(state.current).is_encrypted()
        encrypt = order.encrypt or state.encrypt
        opens = encrypt == encrypted and (device.layout.device_key.exists() or not encrypted)
        if settings is None and _is_current(device, state, release) and opens:
            write_keys(device.layout, keys)
            state = finish(device, state)
            running = _keep_running(device, state)
            _forget_card(device, order)
            return running
        to = other(state.current)
        check_space(release, device.slot(to))
        state = _prepare(device, state, release, to, settings, encrypt=encrypt)
        write_keys(device.layout, keys)
        state = finish(device, state)
        door, parted = _door(device.slot(to)), settings is not None
        switched = switch(device, state, to, door, fresh=True, parted=parted)
        _forget_card(device, order)
        return slot_summary(device.layout, switched, to)


def rollback(device: Device) -> dict[str, Any]:
    """Go back to the version before, which stays installed as long as no newer one takes its slot."""
    with locked(device.layout, "rollback"):
        recover(device)
        state = finish(device, read_state(device.layout))
        to = state.previous
        if to is None:
            raise UserError("there is no version to go back to", "`edgemask-device status` shows what is installed")
        manifest, slot = device.slot(to).manifest(), device.slot(to)
        if manifest.serial < state.floor:
            message = f"{title_of(slot)} may not run any more: its serial is below the floor, {state.floor}"
            raise UserError(message, "a release that ran here ruled it out; install a newer one")
        if (altered := slot.altered()) is not None:
            raise UserError(f"{slot.folder / altered}: not as it was installed", "install the release again")
        device.step("warm-up")
        settings = own_settings.settings_for(device.layout, to, parted=state.parted)
        warm = warm_up(device.layout, slot, settings, device.step)
        state = switch(device, state, to, warm.door, fresh=False, parted=state.parted)
        return slot_summary(device.layout, state, to)


def _forget_card(device: Device, order: Order) -> None:
    """The card's own release must not come again after this one."""
    try:
        forget_card(device.layout, running=order.release)
    except OSError as error:
        # The release is installed and stays; the card's start sees that, too, and does nothing.
        device.step(f"what the card brought stays: {error}")


def _check_digest(order: Order) -> None:
    """Compare the file with what its sender says of it."""
    if order.sha256 is None:
        return
    try:
        digest = sha256_of(order.release)
    except OSError as error:
        raise UserError(
            f"{order.release}: cannot read: {error.strerror}", "check the path, or copy it again"
        ) from error
    if digest != order.sha256.lower():
        message = f"{order.release}: its SHA-256 is {digest}, and not the {order.sha256} that was stated"
        raise UserError(message, "copy it again")


def _is_current(device: Device, state: State, release: Release) -> bool:
    """Whether this very release is the one that runs, sound to the last byte."""
    if state.current is None:
        return False
    slot = device.slot(state.current)
    completed = slot.completed()
    same = completed is not None and completed.release == hashlib.sha256(release.signed).hexdigest()
    return same and slot.altered() is None and slot.has_python()


def _keep_running(device: Device, state: State) -> dict[str, Any]:
    """Start what is installed already, if it does not run."""
    current = state.current or "a"
    if (before := device.services.state()).active != "active":
        link_all(device.layout, device.step)
        device.services.reload()
        device.services.restart()
        door = door_now(device.layout, device.slot(current))
        pass_gate(device.services, before.run, door, device.step, steady_s=device.steady_s)
    return slot_summary(device.layout, state, current)


def _prepare(
    device: Device, state: State, release: Release, to: SlotName, settings: bytes | None, *, encrypt: bool
) -> State:
    """Fill the slot and warm it up; whatever goes wrong leaves it empty and the version that runs untouched."""
    slot = device.slot(to)
    if state.previous == to:
        state = write_state(device.layout, replace(state, previous=None, parted=False))
    try:
        slot.clear()
        own_settings.lay_beside(device.layout, to, settings)
        unpack(release, slot, device.tell)
        for unit in slot.folder.glob("units/*.sysusers"):
            device.services.make_users(unit)
        prove_installer(slot)
        sealed = seal_models(device.layout, slot, device.tell) if encrypt else {}
        device.step("warm-up")
        chosen = own_settings.settings_for(device.layout, to, parted=settings is not None)
        _complete(slot, warm_up(device.layout, slot, chosen, device.step), sealed, device)
    except BaseException as error:
        _give_up(device, state, slot, release, error)
        if isinstance(error, OSError):
            raise _unwritten(error, state) from error
        raise
    return state


def _complete(slot: Slot, warm: Warm, sealed: dict[str, str], device: Device) -> None:
    device.step("sync")
    slot.complete(Completed(1, slot.digest(), python_version(), clock.text(), warm, sealed))


def _give_up(device: Device, state: State, slot: Slot, release: Release, error: BaseException) -> None:
    """Clear the slot and note why; where even that fails, the next start of the device does it."""
    cause = error.message if isinstance(error, UserError) else str(error) or "interrupted"
    try:
        slot.clear()
        own_settings.tidy(device.layout, state)
        if device.layout.state.exists():
            write_state(device.layout, replace(state, failure=Failure(release.manifest.title, cause, clock.text())))
    except (OSError, UserError) as second:
        device.step(f"not cleared: {second}")


def _door(slot: Slot) -> Any:
    completed = slot.completed()
    return completed.warm.door if completed else None


def _unwritten(error: OSError, state: State) -> UserError:
    """Why the slot was not filled, and what is left: not the version that was gone back to, for it lay there."""
    left = "what runs runs on, with no version to go back to" if state.current else "nothing is installed"
    where = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room on the device, `df -h` shows the disks; then install it again"
        return UserError(f"{where}: the disk is full; {left}", hint)
    hint = "`dmesg` tells more of a disk that fails; installing needs root"
    return UserError(f"{where}: cannot write: {error.strerror}; {left}", hint)
