"""The key of keyed masks: a file of its own on the device, for its owner's eyes alone."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import UNREADABLE, read_bytes, write_atomic

OWNER_ONLY = 0o600
DEVICE_KEY_BYTES = 32
CREDENTIAL = "edgemask.key"
"""The device's key among the credentials that systemd gives to the daemon (LoadCredential= in its unit)."""
OTHERS = 0o077


def read_key(path: Path, size: int) -> bytes:
    """Return the key of `size` bytes; UserError unless the file has that size and nobody but its owner has rights."""
    check_owner_only(path, "use this key", "`edgemaskd new-key BUNDLE -o FILE` makes a key")
    key = read_bytes(path, limit_bytes=size)
    if len(key) != size:
        raise UserError(f"{path}: {len(key)} bytes; the key has {size}", hint="the key that the model was trained with")
    return key


def new_key(path: Path, size: int) -> None:
    """Write `size` bytes of the operating system's generator for the owner alone; an existing file stays as it is."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: there is a file already", hint="-o names another one; a lost key is lost for good")
    write_atomic(path, secrets.token_bytes(size), mode=OWNER_ONLY)


def check_owner_only(path: Path, what: str, missing: str = UNREADABLE) -> None:
    """UserError unless `path` is a file that nobody but its owner has any right to; `missing` is what to do without."""
    if _rights(path, missing) & OTHERS:
        raise UserError(f"{path}: others than its owner may {what}", hint=f"chmod 600 {path}")


def _rights(path: Path, missing: str) -> int:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}", missing) from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: no file", missing)
    return mode
