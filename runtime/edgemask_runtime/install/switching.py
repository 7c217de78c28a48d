"""The switch from one slot to the other: written down, made at one stroke, passed through the gate, or undone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import clock, durable, gate, own_settings
from edgemask_runtime.install.doors import door_now
from edgemask_runtime.install.engines import remove_strange_engines
from edgemask_runtime.install.floor import remember
from edgemask_runtime.install.layout import Layout, SlotName
from edgemask_runtime.install.services import Services
from edgemask_runtime.install.slots import Door, Slot
from edgemask_runtime.install.state import Failure, Pending, State, write_state
from edgemask_runtime.install.trusting import apply_changes
from edgemask_runtime.install.units import link_all, unlink_all
from edgemask_runtime.trust import newest_after

EXIT_RETURNED = 5
CAUSE_CHARS = 1000


class Returned(UserError):
    """The new version did not get through the gate, and the one before runs again."""

    exit_code: ClassVar[int] = EXIT_RETURNED


def _quiet(step: str, done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Device:
    """What an installation works on: where it lies, who runs its daemon, and who hears of its steps."""

    layout: Layout
    services: Services
    tell: Callable[[str, int, int], None] = field(default=_quiet)
    steady_s: float = gate.STEADY_S

    def slot(self, name: SlotName) -> Slot:
        """A slot."""
        return Slot(self.layout.slot(name))

    def step(self, name: str) -> None:
        """Tell of a step that has no parts."""
        self.tell(name, 0, 1)


def switch(
    device: Device, state: State, to: SlotName, door: Door | None, *, fresh: bool, parted: bool = False
) -> State:
    """Let the daemon of a complete slot take over, and return the new state.

    With `parted` settings those of the owner's change with the version. Returned when it did not get through the gate,
    or anything else failed on the way; an interrupt undoes it, too.
    """
    own = own_settings.owned(device.layout, to) if parted else None
    pending = Pending(to, state.current, fresh, False, own)
    state = write_state(device.layout, replace(state, pending=pending))
    try:
        device.step("switch")
        if own is not None:
            own_settings.put_in_force(device.layout, to, own)
        durable.link(device.layout.current, device.layout.slot(to).relative_to(device.layout.root))
        _start(device, door)
        state = _passed(device, state, pending)
    except (UserError, OSError) as error:
        raise _taken_back(device, state, to, error.message if isinstance(error, UserError) else str(error)) from error
    except BaseException:
        undo(device, state, "interrupted")
        raise
    try:
        own_settings.tidy(device.layout, state)
        return finish(device, state)
    except (UserError, OSError) as error:
        # The new version runs and stays; a full disk must not call that a failure.
        device.step(f"its changes of keys wait for the next start: {error}")
        return state


def _passed(device: Device, state: State, pending: Pending) -> State:
    """Write down that the new version may stay; from here on nothing goes back by itself."""
    to, manifest = pending.slot, device.slot(pending.slot).manifest()
    floor, newest = max(state.floor, manifest.min_serial), newest_after(state.newest_time, manifest)
    left = replace(pending, passed=True) if pending.fresh else None
    made = replace(state, floor=floor, newest_time=newest, current=to, previous=state.current, pending=left)
    encrypt = state.encrypt or device.slot(to).is_encrypted()
    made = replace(made, encrypt=encrypt, parted=pending.own is not None)
    return write_state(device.layout, replace(made, since=clock.text(), failure=None))


def finish(device: Device, state: State) -> State:
    """Do what is left after a gate that was passed: the floor once more, the release's changes of keys, old engines."""
    if state.pending is None:
        return state
    remember(device.layout, state)
    apply_changes(device.layout, device.slot(state.pending.slot).manifest())
    remove_strange_engines(device.layout)
    return write_state(device.layout, replace(state, pending=None))


def undo(device: Device, state: State, cause: str, *, start: bool = True) -> State:
    """Go back to the version before, or to none; whatever fails meanwhile, the next boot does it again.

    Without `start` the daemon is left to the boot that is under way.
    """
    pending = state.pending
    if pending is None:
        return state
    release = title_of(device.slot(pending.slot))
    own_settings.take_back(device.layout, pending)
    point(device, pending.back)
    if start:
        _start_again(device, pending.back)
    if pending.fresh:
        device.slot(pending.slot).clear()
    failure = Failure(release, cause[:CAUSE_CHARS], clock.text())
    state = write_state(device.layout, replace(state, current=pending.back, pending=None, failure=failure))
    # Why not before: what lies beside says how far the settings have come.
    own_settings.tidy(device.layout, state)
    return state


def point(device: Device, slot: SlotName | None) -> None:
    """Let `current` and all that goes through it be of this slot; of none, let nothing be left of them."""
    layout = device.layout
    if slot is None:
        unlink_all(layout, device.step)
        durable.remove(layout.current)
        return
    durable.link(layout.current, layout.slot(slot).relative_to(layout.root))
    link_all(layout, device.step)


def _start(device: Device, door: Door | None) -> None:
    link_all(device.layout, device.step)
    device.services.reload()
    before = device.services.state().run
    device.services.restart()
    gate.pass_gate(device.services, before, door, device.step, steady_s=device.steady_s)


def _start_again(device: Device, back: SlotName | None) -> None:
    device.step("return")
    if back is None:
        device.services.stop()
    device.services.reload()
    if back is not None:
        device.services.restart()


def _taken_back(device: Device, state: State, to: SlotName, cause: str) -> Returned:
    """Undo it, and the error that says why and what runs now."""
    title, back, before = title_of(device.slot(to)), state.current, ""
    try:
        # Why not an error: a systemd that does not answer must not keep the way back from being gone.
        with suppress(UserError):
            before = device.services.state().run
        undo(device, state, cause)
        if back is not None:
            door = door_now(device.layout, device.slot(back))
            gate.pass_gate(device.services, before, door, device.step, steady_s=0)
    except (UserError, OSError) as error:
        second = error.message if isinstance(error, UserError) else str(error)
        text = f"{title} was taken back: {cause}; then, on the way back: {second}"
        return Returned(text, "`edgemask-device recover` goes back again, as the next start of the device does")
    if back is None:
        return Returned(f"{title} was taken back, and nothing runs: {cause}", "mend the cause, and install it again")
    runs = f"{title_of(device.slot(back))} runs again"
    return Returned(f"{title} was taken back: {cause}", f"{runs}; mend the cause, and install again")


def title_of(slot: Slot) -> str:
    """The release in a slot, for people."""
    try:
        return slot.manifest().title
    except UserError:
        return "what is in slot " + slot.folder.name
