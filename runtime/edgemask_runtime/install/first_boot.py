"""The first install on a board whose card came with a release: `edgemask flash RELEASE --to sd.img` put it there.

Its unit starts it at every boot until the plan is gone, and the plan goes last: a power cut, a full disk or a daemon
that does not come up is tried again at the next boot. Once anything is installed, by whatever way, it has nothing to do
any more. What happens stands in the journal and, for whoever puts the card into a PC, in a file on the boot partition.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgemask_runtime.errors import UserError, run_main
from edgemask_runtime.install import clock
from edgemask_runtime.install.card import PLAN, forget_card
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.state import read_state
from edgemask_runtime.strict_json import Faults, parse, structure

LOG = "edgemask-first-boot.txt"
BOOT_FOLDERS = (Path("/boot/firmware"), Path("/boot"))
INSTALL = (sys.executable, "-m", "edgemask_runtime.install", "install")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to do: when it was prepared, in seconds since 1970, and what `edgemask-device install` is called with."""

    schema: int
    prepared: int
    install: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read plan.json; UserError when it is not sound."""
        faults = Faults(str(path))
        try:
            plan: Plan | None = structure(cls, parse(path.read_text(), str(path)), "$", faults)
        except OSError as error:
            raise UserError(f"{path}: cannot read: {error.strerror}", "prepare the card again") from error
        if plan is None or faults:
            raise faults.error("prepare the card again: `edgemask flash RELEASE --to sd.img`")
        return plan


def carry_out(layout: Layout, boot: Path | None, *, command: Sequence[str] = INSTALL, clock: bool = True) -> int:
    """Install what the card brought, and clear up behind a success; the installer's exit code."""
    with ExitStack() as stack:
        tell = _teller(stack, boot)
        tell("edgemask: first start of this card")
        try:
            plan = Plan.read(layout.card / PLAN)
            code = 0 if _is_over(layout, tell) else _carry_out(plan, layout, command, tell, clock=clock)
        except UserError as error:
            tell(f"failed: {error.message}; {error.hint}")
            return error.exit_code
        if code != 0:
            tell(f"failed with exit code {code}; it is tried again at the next start")
            return code
        # Why no error: the next start sees that it is over.
        with suppress(OSError):
            forget_card(layout)
        tell("done: a release is installed; `edgemask status HOST` on your PC shows it")
    return 0


def _is_over(layout: Layout, tell: Tell) -> bool:
    """Whether a release got through its gate here since the card was prepared: this one, cut off behind it, or one that
    came by another way, which the card's must not replace."""
    if read_state(layout).current is None:
        return False
    tell("a release is installed here already: that of the card is not needed any more")
    return True


def _carry_out(plan: Plan, layout: Layout, command: Sequence[str], tell: Tell, *, clock: bool) -> int:
    if clock:
        _advance_clock(plan.prepared, tell)
    return _install([*command, *plan.install], layout.card, tell)


def main() -> None:
    """What the unit runs."""
    sys.exit(run_main(lambda: carry_out(Layout(), next(filter(os.path.ismount, BOOT_FOLDERS), None))))


def _teller(stack: ExitStack, boot: Path | None) -> Tell:
    """Tell the journal and, where it can be written, the file that whoever takes the card out will look for."""
    log: IO[str] | None = None
    if boot is not None:
        with suppress(OSError):
            log = stack.enter_context((boot / LOG).open("w"))

    def tell(line: str) -> None:
        print(line, flush=True)
        if log:
            # Why swallowed: a boot partition that is full or read-only must not keep the board from its release.
            with suppress(OSError):
                log.write(f"{clock.text()} {line}\n")
                log.flush()
                os.fsync(log.fileno())

    return tell


def _advance_clock(prepared: int, tell: Tell) -> None:
    """A board without a battery and a network starts in the past: the card cannot be older than its own preparing."""
    if time.time() >= prepared:
        return
    try:
        time.clock_settime(time.CLOCK_REALTIME, prepared)
        tell("the clock stood before the card's own preparing: set to that moment")
    except OSError as error:
        tell(f"the clock stands before the card's own preparing and cannot be set: {error.strerror}")


def _install(command: Sequence[str], folder: Path, tell: Tell) -> int:
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            tell(line.rstrip("\n"))
    return process.returncode


if __name__ == "__main__":
    main()
