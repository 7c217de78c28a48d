"""The warm-up: the new version's own daemon starts its models, as the user that it will run as, before anything is
switched."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemask_runtime.errors import UserError
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.sealing import credentials
from edgemask_runtime.install.slots import Slot, Warm
from edgemask_runtime.strict_json import Faults, known, structure

USER = "edgemask"
ERROR_CHARS = 2000
PR_SET_PDEATHSIG = 1
STATE_MODE = 0o750


def warm_up(layout: Layout, slot: Slot, settings: Path, tell: Callable[[str], None]) -> Warm:
    """Run the slot's models once, on these settings, and return what was found; UserError with what the daemon said."""
    command = [str(slot.programs / "edgemaskd"), "warm-up", str(settings), "--slot", str(slot.folder), "--json"]
    if not Path(command[0]).exists():
        raise UserError("the release brings no `edgemaskd`: none of its wheels has it", "build the release again")
    user = _user() if layout.system == Path("/") and os.geteuid() == 0 else None
    # Why a file: engines may say more than a pipe takes while nobody reads it.
    with tempfile.TemporaryFile("w+", errors="replace") as errors, credentials(layout, user) as key:
        with subprocess.Popen(command, stderr=errors, **_as_daemon(layout, user, key)) as process:
            try:
                last = _listen(process, tell)
            except BaseException:
                process.kill()
                raise
        if process.returncode or last is None:
            errors.seek(0)
            raise _failed(errors.read().strip()[-ERROR_CHARS:] or f"exit code {process.returncode}")
    faults = Faults("edgemaskd warm-up")
    warm: Warm | None = structure(Warm, known(Warm, last), "$", faults)
    if warm is None or faults:
        raise faults.error("build the release again")
    return warm


def _failed(said: str) -> UserError:
    """The error with the daemon's words, and its hint where it gave one."""
    message, found, hint = said.removeprefix("error: ").partition("\nhint: ")
    otherwise = "mend that, or build the release again; `edgemaskd check SETTINGS` looks at settings and models alone"
    return UserError(f"the warm-up failed: {message}", hint if found else otherwise)


def _listen(process: subprocess.Popen[str], tell: Callable[[str], None]) -> Any:
    """Pass on what it tells; its last word."""
    last: Any = None
    for line in process.stdout or ():
        told = json.loads(line) if line.startswith("{") else {}
        if "warming" in told:
            tell(str(told["warming"]))
        last = told.get("warm", last)
    return last


def _as_daemon(layout: Layout, user: pwd.struct_passwd | None, key: dict[str, str]) -> dict[str, Any]:
    """How the daemon is run: as its user where there is one and this is root, with its own folder, and not for longer
    than this process."""
    libc = ctypes.CDLL(None)
    options: dict[str, Any] = {
        "cwd": "/",
        "env": {**os.environ, "STATE_DIRECTORY": str(layout.data), **key},
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "text": True,
        "errors": "replace",
        "preexec_fn": lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    }
    if user:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(USER, user.pw_gid)}
    _make_data(layout, user)
    return options


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _make_data(layout: Layout, user: pwd.struct_passwd | None) -> None:
    """The daemon's folder, as systemd would make it."""
    if not layout.data.is_dir():
        layout.data.mkdir(parents=True)
        layout.data.chmod(STATE_MODE)
        if user:
            os.chown(layout.data, user.pw_uid, user.pw_gid)
