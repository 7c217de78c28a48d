"""Take everything away again."""

from __future__ import annotations

import pwd
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable, own_settings
from edgemask_runtime.install.card import forget_card
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.lock import locked
from edgemask_runtime.install.state import State, read_state, write_state
from edgemask_runtime.install.switching import Device
from edgemask_runtime.install.units import unlink_all
from edgemask_runtime.install.warming import USER


def uninstall(device: Device, *, purge: bool = False) -> list[str]:
    """Stop the daemon and remove all that was installed; what the owner put into /etc/edgemask stays unless purged.

    Cut off anywhere, it can be run again.
    """
    layout = device.layout
    with locked(layout, "uninstall"):
        forget_card(layout)
        device.services.stop()
        _leave_settings(layout)
        unlink_all(layout, device.step)
        device.services.reload()
        durable.remove(layout.current)
        gone = [layout.root, layout.data, layout.runtime]
        gone += [layout.settings.parent] if purge else []
        removed = [str(folder) for folder in gone if folder.exists()]
        # Why only if empty: what is left there is the owner's.
        with suppress(OSError):
            layout.settings.parent.rmdir()
        if layout.system == Path("/"):
            _remove_user()
        # The root last: as long as it is there, it can be seen that something is left to be done.
        for folder in reversed(gone):
            durable.remove_tree(folder)
    return removed


def _leave_settings(layout: Layout) -> None:
    """Of the owner's settings let those stay that are in force; of a switch that was cut off, those before it."""
    with suppress(UserError):
        state = read_state(layout)
        if state.pending and not state.pending.passed:
            own_settings.take_back(layout, state.pending)
            write_state(layout, replace(state, pending=None))
    own_settings.tidy(layout, State())


def _remove_user() -> None:
    with suppress(KeyError):
        pwd.getpwnam(USER)
        command = ["/usr/sbin/userdel", USER]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
