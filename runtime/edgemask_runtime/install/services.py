"""The service manager, as the installer needs it: users, restart, stop, and what became of it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgemask_runtime.errors import UserError

UNIT = "edgemaskd.service"
SHOWN = ("ActiveState", "SubState", "NRestarts", "InvocationID", "Result", "ExecMainStatus", "StatusText")
RUNNING = Path("/run/systemd/system")
LIMIT_S = 120
LINES = 8


@dataclass(frozen=True)
class ServiceState:
    """What the manager says of the daemon: `run` names one start of it, `restarts` counts those nobody asked for."""

    active: str = "unknown"
    sub: str = "unknown"
    restarts: int = 0
    run: str = ""
    result: str = ""
    status: str = ""


class Services(Protocol):
    """A service manager with the one service of an installation."""

    def make_users(self, file: Path) -> None:
        """Make the users and groups that a sysusers.d file names."""

    def reload(self) -> None:
        """Read the unit files again."""

    def restart(self) -> None:
        """Begin to stop and start the daemon; do not wait for it."""

    def stop(self) -> None:
        """Stop the daemon, and forget that it failed."""

    def state(self) -> ServiceState:
        """What it does now."""

    def said(self) -> str:
        """The last lines that the daemon logged since the restart, for whoever asks why."""


class Systemd:
    """systemd, through its own programs."""

    def __init__(self) -> None:
        self._restarted_s = time.time()

    def make_users(self, file: Path) -> None:
        """systemd-sysusers of this file."""
        _run("systemd-sysusers", str(file))

    def reload(self) -> None:
        """Read the unit files again."""
        _run("systemctl", "daemon-reload")

    def restart(self) -> None:
        """Queue a restart. Failed starts of before no longer count."""
        _run("systemctl", "reset-failed", UNIT, check=False)
        self._restarted_s = time.time()
        _run("systemctl", "restart", "--no-block", UNIT)

    def stop(self) -> None:
        """Stop it and wait."""
        _run("systemctl", "stop", UNIT, check=False)
        _run("systemctl", "reset-failed", UNIT, check=False)

    def state(self) -> ServiceState:
        """What `systemctl show` says."""
        told = _run("systemctl", "show", UNIT, f"--property={','.join(SHOWN)}", check=False)
        values = dict(line.partition("=")[::2] for line in told.splitlines())
        restarts = values.get("NRestarts", "")
        return ServiceState(
            active=values.get("ActiveState", "unknown"),
            sub=values.get("SubState", "unknown"),
            restarts=int(restarts) if restarts.isdigit() else 0,
            run=values.get("InvocationID", ""),
            result=_result(values),
            status=values.get("StatusText", ""),
        )

    def said(self) -> str:
        """What it told the journal, and the manager of it; nothing where there is no journal."""
        since = f"--since=@{int(self._restarted_s)}"
        return _run("journalctl", "-u", UNIT, since, "-n", str(LINES), "-o", "cat", "-q", check=False).strip()


def systemd() -> Systemd:
    """systemd; UserError where it does not run."""
    if not RUNNING.is_dir():
        raise UserError("systemd does not run here", "a device needs systemd to keep the daemon alive")
    return Systemd()


def _result(values: dict[str, str]) -> str:
    result, code = values.get("Result", ""), values.get("ExecMainStatus", "")
    return f"{result} {code}".strip() if code not in ("", "0") else result


def _run(*command: str, check: bool = True) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except FileNotFoundError as error:
        raise UserError(f"{command[0]}: not found", "a device needs systemd") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"`{' '.join(command)}` does not end", "`systemctl list-jobs` shows what it waits for"
        ) from error
    if check and done.returncode:
        hint = f"`systemctl status {UNIT}` and `journalctl -b -p warning` tell more; mend it, and run this again"
        raise UserError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}", hint)
    return done.stdout
