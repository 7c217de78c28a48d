"""state.json: which slot runs, which ran before, and a switch whose gate is not passed yet."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout, SlotName
from edgemask_runtime.strict_json import LARGEST_EXACT, Faults, between, known, parse, structure

MAX_BYTES = 1 << 16
HINT = "`edgemask-device recover` makes it anew from what the slots hold"


@dataclass(frozen=True)
class Pending:
    """A switch under way: to which slot, back to which one (None: nothing ran before), whether the version there is
    fresh and not one that ran before, and whether it may stay. Where the settings change with it, `own` are the slots
    that have some of the owner's."""

    slot: SlotName
    back: SlotName | None
    fresh: bool
    passed: bool
    own: tuple[SlotName, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """The last change that did not come through, and why."""

    release: str
    cause: str
    at: str


@dataclass(frozen=True)
class State:
    """What was last known to be well. `floor` is the lowest serial that may be installed, `newest_time` a second that
    has passed for certain: the date of the newest release that ever ran here, `encrypt` that every release's models are
    to be encrypted, whatever those of the one that runs are, `parted` that the version before has other settings."""

    schema: Literal[1] = 1
    floor: int = field(default=0, metadata=between(0, LARGEST_EXACT))
    current: SlotName | None = None
    previous: SlotName | None = None
    pending: Pending | None = None
    newest_time: int = field(default=0, metadata=between(0, LARGEST_EXACT))
    since: str | None = None
    failure: Failure | None = None
    encrypt: bool = False
    parted: bool = False


def read_state(layout: Layout) -> State:
    """The state; a fresh one where nothing was installed yet. UserError when the file is broken."""
    if not layout.state.exists():
        return State()
    where, faults = str(layout.state), Faults(str(layout.state))
    try:
        state: State | None = structure(State, known(State, parse(_text(layout), where)), "$", faults)
    except UserError as error:
        raise UserError(error.message, HINT) from error
    if state is None or faults:
        raise faults.error(HINT)
    return state


def write_state(layout: Layout, state: State) -> State:
    """Write it down and return it."""
    durable.write(layout.state, (json.dumps(asdict(state), indent=2) + "\n").encode())
    return state


def _text(layout: Layout) -> str:
    try:
        return read_bytes(layout.state, limit_bytes=MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{layout.state}: not UTF-8 text") from error
