"""The daemon's own verbs, run on this machine: its moving parts are none of the toolchain's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from edgemask.errors import UserError

MODULE = "edgemask_runtime.daemon"


def edgemaskd(arguments: Sequence[str]) -> str:
    """What `edgemaskd ARGUMENTS` prints; UserError with its message and hint where it fails."""
    command = [sys.executable, "-m", MODULE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise _error(done.stderr)
    return done.stdout


def _error(said: str) -> UserError:
    message, _, hint = said.strip().removeprefix("error: ").partition("\nhint: ")
    return UserError(message or "edgemaskd failed and said nothing", hint or None)
