"""After a power cut, or a process that was killed: finish what passed its gate, undo what did not, clear the rest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import clock, durable, own_settings
from edgemask_runtime.install.floor import Floor, remember, remembered
from edgemask_runtime.install.layout import SLOTS, SlotName, other
from edgemask_runtime.install.state import Failure, State, read_state, write_state
from edgemask_runtime.install.switching import Device, finish, point, title_of, undo
from edgemask_runtime.install.units import link_all
from edgemask_runtime.trust import newest_after

CUT = "its gate was not passed yet when the power or the installer was cut off"


def recover(device: Device, *, boot: bool = False) -> list[str]:
    """Bring everything into order and say what was done; nothing where all was well. The lock must be held.

    At a `boot` the daemon is not started: systemd is about to.
    """
    done: list[str] = []
    state = _read(device, done)
    if state.pending and state.pending.passed:
        state = _finished(device, state, done)
    elif state.pending:
        done.append(f"{title_of(device.slot(state.pending.slot))}: taken back: {CUT}")
        state = undo(device, state, CUT, start=not boot)
        _reload(device, boot)
    state = _mend_current(device, state, done, boot=boot)
    _clear(device, state, done)
    if state.current is not None:
        link_all(device.layout, device.step, enable=False)
    return done


def _finished(device: Device, state: State, done: list[str]) -> State:
    """Bring it to its end. What cannot be done yet waits: the version that passed its gate runs all the same."""
    title = title_of(device.slot(state.current or "a"))
    try:
        state = finish(device, state)
        done.append(f"{title}: finished its installation")
    except (UserError, OSError) as error:
        reason = f"{error.message}; {error.hint}" if isinstance(error, UserError) else str(error)
        done.append(f"{title}: its changes of keys wait: {reason}")
    return state


def _read(device: Device, done: list[str]) -> State:
    """The state, made anew where it is broken or gone."""
    layout = device.layout
    try:
        if layout.state.exists() or not (layout.slots.exists() or layout.current.is_symlink()):
            return read_state(layout)
        cause = "missing"
    except UserError as error:
        cause = error.message
        layout.state.replace(layout.state.with_suffix(".broken"))
    done.append(f"{layout.state}: broken or missing, made anew from what the slots hold")
    state = write_state(layout, replace(_found(device), failure=Failure("state.json", cause, clock.text())))
    remember(layout, state)
    return state


def _found(device: Device) -> State:
    """What slots and link tell: the slot that `current` points to runs, or the newest one."""
    whole = [name for name in SLOTS if _whole(device, name)]
    whole.sort(key=lambda name: (name == device.layout.running(), device.slot(name).manifest().serial), reverse=True)
    current, previous = (*whole, None, None)[:2]
    kept = _kept(device, whole)
    if current is None or not device.layout.current.is_symlink():
        return kept
    encrypt = any(device.slot(name).is_encrypted() for name in whole)
    parted = device.layout.beside(other(current)).exists()
    return replace(kept, current=current, previous=previous, encrypt=encrypt, parted=parted)


def _kept(device: Device, whole: list[SlotName]) -> State:
    """Floor and time, no lower than they were; where nothing tells of them, what runs is the oldest that may."""
    releases = [device.slot(name).manifest() for name in whole]
    known = remembered(device.layout) or Floor(releases[0].serial if releases else 0, 0)
    newest = [newest_after(known.newest_time, release) for release in releases]
    floor = max([known.floor, *(release.min_serial for release in releases)])
    return State(floor=floor, newest_time=max([known.newest_time, *newest]))


def _mend_current(device: Device, state: State, done: list[str], *, boot: bool) -> State:
    """Let `current` be the slot that the state names, or the one before if that is not whole, or nothing."""
    wanted, previous = _choices(device, state)
    resumed = wanted is not None and own_settings.resume(device.layout, wanted)
    if resumed or device.layout.running() != wanted or (wanted is None and device.layout.current.is_symlink()):
        point(device, wanted)
        done.append(f"current: now {title_of(device.slot(wanted)) if wanted else 'nothing, for no slot is whole'}")
        _reload(device, boot)
        if wanted and not boot:
            device.services.restart()
    if (state.current, state.previous) != (wanted, previous):
        state = write_state(device.layout, replace(state, current=wanted, previous=previous))
    return state


def _choices(device: Device, state: State) -> tuple[SlotName | None, SlotName | None]:
    """What should run, and what may be gone back to; nothing below the floor takes the place of what is lost."""
    previous = state.previous if _whole(device, state.previous) else None
    if state.current is None or _whole(device, state.current):
        return state.current, previous
    allowed = previous is not None and device.slot(previous).manifest().serial >= state.floor
    return (previous, None) if allowed else (None, previous)


def _whole(device: Device, name: SlotName | None) -> bool:
    return name is not None and device.slot(name).completed() is not None


def _clear(device: Device, state: State, done: list[str]) -> None:
    """Remove slots that never ran, and half-written files."""
    for name in SLOTS:
        if device.slot(name).folder.exists() and name not in (state.current, state.previous):
            device.slot(name).clear()
            done.append(f"slot {name}: not in use, cleared")
    own_settings.tidy(device.layout, state)
    for part in device.layout.root.glob(".*.part"):
        durable.remove(part)
    durable.remove_tree(device.layout.credentials)


def _reload(device: Device, boot: bool) -> None:
    """At a boot systemd has read the unit files of the version that is gone."""
    # Why no error: the daemon of the version that is there starts all the same.
    with suppress(UserError):
        if boot:
            device.services.reload()
