"""Whether a version could be undone, replaced and taken away: its own `edgemask-device` does so once it is current."""

from __future__ import annotations

import subprocess

from edgemask_runtime.errors import UserError
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.release import UNITS, ReleaseManifest

NEEDED = ("edgemaskd.service", "edgemask-recover.service")
LIMIT_S = 120
ERROR_CHARS = 2000
AGAIN = "build the release again"


def check_units(manifest: ReleaseManifest) -> None:
    """UserError unless the release brings the units of the daemon and of what undoes a cut-off installation."""
    missing = [name for name in NEEDED if f"{UNITS}{name}" not in manifest.units]
    if missing:
        raise UserError(f"the release brings no {' and no '.join(missing)}", AGAIN)


def prove_installer(slot: Slot) -> None:
    """UserError unless the slot's own `edgemask-device` starts, with all that it imports."""
    program = slot.programs / "edgemask-device"
    if not program.exists():
        raise UserError("the release brings no `edgemask-device`: none of its wheels has it", AGAIN)
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError("the release's `edgemask-device` does not start: it hangs", AGAIN) from error
    if done.returncode:
        said = done.stderr.strip()[-ERROR_CHARS:] or f"exit code {done.returncode}"
        raise UserError(f"the release's `edgemask-device` does not start: {said}", AGAIN)
