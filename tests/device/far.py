"""A device for releases: this machine behind an sshd, with a folder for its disk and services of a real manager."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.boards import HERE, Maker
from runtime.manager import Manager

from edgemask.device.destination import Destination
from edgemask.device.flash import FlashOptions, Outcome, Plan, flash
from edgemask.device.home import Home
from edgemask.device.ssh import Ssh
from edgemask_runtime.install.layout import Layout

from .sshd import HOST, Sshd, programs

BOARD = Destination(HOST)
PROGRAMS = "sh bash cat env id true sleep ls".split()


@dataclass
class Far:
    """The device, who signs for it, and what it told in the end."""

    sshd: Sshd
    layout: Layout
    manager: Manager
    maker: Maker
    home: Home

    def connect(self) -> Ssh:
        return Ssh(BOARD, self.sshd.ssh_config)

    def options(self, **changes: Any) -> FlashOptions:
        given = {"enrol": self.maker.public, "config": self.sshd.ssh_config, "home": self.home}
        return FlashOptions(**given | changes)

    def flash(self, release: Path, tell: Any = lambda *_: None, **changes: Any) -> Outcome:
        (outcome,) = flash(release, [BOARD], self.options(**changes), tell, agree)
        return outcome

    def runs(self, serial: int) -> bool:
        self.manager.becomes("active", f"version {serial}")
        return True


def agree(plan: Plan) -> bool:
    return True


def far_device(tmp_path: Path, sshd: Sshd, bundle: Path) -> Far:
    """A device with nothing on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    layout = Layout(folder / "root", folder / "system")
    manager = Manager(layout, folder)
    program = (sys.executable, "-B", str(HERE / "installer.py"), str(folder), "0")
    home = Home(str(layout.root), str(layout.settings), program)
    with_python(sshd)
    return Far(sshd, layout, manager, Maker(tmp_path, bundle), home)


def with_python(sshd: Sshd, *names: str, python: str = f'exec "{sys.executable}" "$@"') -> None:
    """Let the device have the Python of these tests, or another script of this name, and few programs beside it."""
    folder = programs(sshd.folder / "bin", *PROGRAMS, *names)
    if python:
        (folder / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (folder / "python3").chmod(0o755)
    sshd.configure(environment=f"PATH={folder}")
