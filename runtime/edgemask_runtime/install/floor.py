"""floor.json: what may never sink, written down once more, so that a state.json that is lost takes none of it along."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.state import State
from edgemask_runtime.strict_json import LARGEST_EXACT, Faults, between, known, parse, structure

MAX_BYTES = 1 << 12


@dataclass(frozen=True)
class Floor:
    """The lowest serial that may be installed, and a second that has passed for certain."""

    floor: int = field(metadata=between(0, LARGEST_EXACT))
    newest_time: int = field(metadata=between(0, LARGEST_EXACT))
    schema: Literal[1] = 1


def remembered(layout: Layout) -> Floor | None:
    """What was written down; None where nothing was, or nothing that can be read."""
    where = str(layout.floor)
    try:
        parsed = known(Floor, parse(read_bytes(layout.floor, limit_bytes=MAX_BYTES).decode(), where))
    except (UserError, UnicodeDecodeError):
        return None
    faults = Faults(where)
    floor: Floor | None = structure(Floor, parsed, "$", faults)
    return floor if not faults else None


def remember(layout: Layout, state: State) -> None:
    """Write down what the state says, where that is more."""
    before = remembered(layout) or Floor(-1, -1)
    now = Floor(max(before.floor, state.floor), max(before.newest_time, state.newest_time))
    if now != before:
        durable.write(layout.floor, (json.dumps(asdict(now), indent=2) + "\n").encode())
