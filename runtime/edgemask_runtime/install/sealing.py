"""Models of a slot encrypted with the device's key, and the key for a daemon that is not started by systemd."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import struct_passwd

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.keys import CREDENTIAL, DEVICE_KEY_BYTES, OWNER_ONLY

OWNER_READS, OWNER_ENTERS = 0o400, 0o700
ERROR_CHARS = 2000


def seal_models(layout: Layout, slot: Slot, tell: Callable[[str, int, int], None]) -> dict[str, str]:
    """Encrypt the models of a slot where they lie; the sha256 of each as it lies there now, by its name."""
    if not layout.device_key.exists():
        durable.write(layout.device_key, secrets.token_bytes(DEVICE_KEY_BYTES), mode=OWNER_ONLY)
    names = sorted(model.file for model in slot.manifest().models.values())
    tell("encrypt", 0, 1)
    # Why the slot's own Python: at a first install this one may have no `cryptography`.
    command = [str(slot.programs / "python"), "-I", "-m", "edgemask_runtime.sealed", str(layout.device_key)]
    done = subprocess.run(
        [*command, *(str(slot.folder / name) for name in names)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip()[-ERROR_CHARS:].removeprefix("error: ")
        raise UserError(f"the models cannot be encrypted: {said}", "mend that, or leave --encrypt-models out")
    sealed = json.loads(done.stdout)
    return {name: sealed[str(slot.folder / name)] for name in names}


@contextmanager
def credentials(layout: Layout, user: struct_passwd | None) -> Iterator[dict[str, str]]:
    """The variable by which a daemon finds the device's key, as systemd would have it; none where there is no key."""
    if not layout.device_key.exists():
        yield {}
        return
    folder = layout.credentials
    durable.remove_tree(folder)
    folder.mkdir(mode=OWNER_ENTERS, parents=True)
    try:
        _give(folder / CREDENTIAL, layout.device_key.read_bytes(), user)
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield {"CREDENTIALS_DIRECTORY": str(folder)}
    finally:
        durable.remove_tree(folder)


def _give(path: Path, key: bytes, user: struct_passwd | None) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, OWNER_READS)) as file:
        file.write(key)
    if user:
        os.chown(path, user.pw_uid, user.pw_gid)
