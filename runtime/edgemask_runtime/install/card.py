"""What `edgemask flash --to sd.img` put onto a card: the plan of its first start, and what that start needs."""

from __future__ import annotations

from pathlib import Path

from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout

PLAN = "plan.json"
UNIT = "edgemask-first-boot.service"


def forget_card(layout: Layout, *, running: Path | None = None) -> None:
    """Let the card's first start do nothing any more: something was installed, or is taken away.

    The release that is `running` this very start stays with its wheel: the start needs them, and clears up itself.
    """
    if running is not None and running.resolve().parent == layout.card.resolve():
        return
    # The plan first: without it the unit starts no more, whatever else is left behind.
    durable.remove(layout.card / PLAN)
    for unit in (layout.units / "multi-user.target.wants" / UNIT, layout.units / UNIT):
        durable.remove(unit)
    durable.remove_tree(layout.card)
