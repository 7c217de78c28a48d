"""What runs here, what else is installed, and what went wrong last."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import clock, gate
from edgemask_runtime.install.doors import door_now
from edgemask_runtime.install.layout import SLOTS, Layout, SlotName
from edgemask_runtime.install.lock import observed
from edgemask_runtime.install.services import Services
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.install.state import State, read_state
from edgemask_runtime.install.units import owners_settings
from edgemask_runtime.release import payload_digest
from edgemask_runtime.trust import Keys

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


def slot_summary(layout: Layout, state: State, name: SlotName) -> dict[str, Any]:
    """The release in a slot, as plain data."""
    slot = Slot(layout.slot(name))
    manifest, completed = slot.manifest(), slot.completed()
    models = completed.warm.models if completed else {}
    return {
        "slot": name,
        "name": manifest.name,
        "version": manifest.version,
        "serial": manifest.serial,
        "target": manifest.target,
        "digest": payload_digest(manifest),
        "encrypted": completed is not None and bool(completed.sealed),
        "since": state.since if name == state.current else None,
        "engine": {model: f"{warm.engine}, {warm.provider}" for model, warm in models.items()},
    }


def status(layout: Layout, services: Services) -> dict[str, Any]:
    """All that there is to know, as plain data; UserError with the way out where the installation is damaged."""
    with observed(layout) as busy:
        state = read_state(layout)
        trouble = troubles(layout, state, busy=busy is not None)
    return {
        "installed": _installed(layout, state, state.current),
        "previous": _installed(layout, state, state.previous),
        "pending": state.pending.slot if state.pending else None,
        "floor": state.floor,
        "settings": "the owner's" if owners_settings(layout) else "the release's",
        "service": _service(services),
        "health": _health(layout, state),
        "busy": busy,
        "trouble": trouble,
        "disk": _disk(layout),
        "clock": _clock(state),
        "keys": _keys(layout),
        "failure": vars(state.failure) if state.failure else None,
    }


def troubles(layout: Layout, state: State, *, busy: bool) -> list[str]:
    """What is wrong with the files, each with the way out; not what a change under way has yet to finish."""
    found = []
    way_out = "`edgemask-device recover` mends it"
    if layout.current.is_symlink() and not layout.current.exists():
        found.append(f"{layout.current}: points to {layout.current.readlink()}, which is not there; {way_out}")
    elif busy:
        pass
    elif state.pending:
        found.append(f"an installation into slot {state.pending.slot} was cut off; {way_out}")
    elif layout.running() != state.current:
        found.append(f"{layout.current}: not the slot {state.current} that was installed; {way_out}")
    for name in () if busy else SLOTS:
        folder = layout.slot(name)
        if folder.exists() and Slot(folder).completed() is None:
            found.append(f"{folder}: not complete; {way_out}")
    if state.current and not layout.slot(state.current).exists():
        found.append(f"{layout.slot(state.current)}: missing; {way_out}, or install the release again")
    return found + _aged(layout, state)


def _aged(layout: Layout, state: State) -> list[str]:
    """An operating system's upgrade takes the Python away that an environment was made of."""
    slot = Slot(layout.slot(state.current)) if state.current else None
    completed = slot.completed() if slot else None
    if slot is None or completed is None or slot.has_python():
        return []
    return [f"Python {completed.python} is gone from this device: build a release for its new one, and install it"]


def _installed(layout: Layout, state: State, name: SlotName | None) -> dict[str, Any] | None:
    if name is None or Slot(layout.slot(name)).completed() is None:
        return None
    return slot_summary(layout, state, name)


def _service(services: Services) -> dict[str, Any]:
    state = services.state()
    told = {"state": state.active, "detail": state.sub, "restarts": state.restarts, "status": state.status}
    return told | ({"result": state.result} if state.result not in ("", "success") else {})


def _health(layout: Layout, state: State) -> str:
    door = door_now(layout, Slot(layout.slot(state.current))) if state.current else None
    if door is None:
        return "no HTTP server to ask"
    answer = gate.asked(door)
    return "ready" if answer.good else f"not ready: {answer.text}"


def _disk(layout: Layout) -> dict[str, int]:
    usage = shutil.disk_usage(next(path for path in (layout.root, *layout.root.parents) if path.exists()))
    return {"free_bytes": usage.free, "total_bytes": usage.total}


def _clock(state: State) -> dict[str, Any]:
    behind_s = max(0, state.newest_time - clock.now_s())
    return {"now": clock.text(), "behind_s": behind_s, "synchronised": SYNCHRONISED.exists()}


def _keys(layout: Layout) -> dict[str, Any]:
    try:
        keys = Keys.read(layout.keys)
    except UserError as error:
        return {"trouble": f"{error.message}; {error.hint}"}
    return {"enrolled": [asdict(key) for key in keys.enrolled], "revoked": list(keys.revoked)}
