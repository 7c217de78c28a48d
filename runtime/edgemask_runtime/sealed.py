"""Bundles encrypted at rest with a key of the device: sealed when they are installed, opened in memory.

A sealed file is MAGIC, a nonce, the sha256 of the bundle, and ChaCha20-Poly1305 (RFC 8439) of the bundle; MAGIC, the
file's name and that digest are its associated data, so that no file passes for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from edgemask_runtime.archive import MAX_BYTES
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.errors import UserError, run_main
from edgemask_runtime.files import read_bytes, write_atomic
from edgemask_runtime.keys import CREDENTIAL, DEVICE_KEY_BYTES, check_owner_only

MAGIC = b"edgemask sealed 1\0"
NONCE_BYTES, DIGEST_BYTES, TAG_BYTES = 12, 32, 16
HEADER_BYTES = len(MAGIC) + NONCE_BYTES + DIGEST_BYTES
READABLE = 0o644


def open_stored(path: Path | str, named: Path | None = None, *, whole: bool = True) -> Bundle:
    """Open a bundle, sealed or not; a sealed one needs the device's key, and is opened in memory alone.

    `named` is where the file lies, if `path` is only a way to it; `whole` is that of `Bundle.open`.
    """
    where, name = Path(path), named or Path(path)
    if not _is_sealed(where):
        return Bundle.open(path, whole=whole)
    key = device_key()
    if key is None:
        hint = "the daemon's unit has the key (LoadCredential=); a release that is installed again brings its own file"
        raise UserError(f"{name}: encrypted with the device's key, which is not here", hint)
    return Bundle.open(name, unseal(read_bytes(where, limit_bytes=MAX_BYTES), name, key), whole=whole)


def device_key() -> bytes | None:
    """The device's key as systemd gives it to the daemon, None where there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        key = (Path(folder) / CREDENTIAL).read_bytes() if folder else b""
    except OSError:
        return None
    return key if len(key) == DEVICE_KEY_BYTES else None


def seal(plain: bytes, name: str, key: bytes) -> bytes:
    """Encrypt the content of the file `name`."""
    nonce, digest = os.urandom(NONCE_BYTES), hashlib.sha256(plain).digest()
    header = MAGIC + nonce + digest
    return header + bytes(_cipher(key).encrypt(nonce, plain, _associated(name, digest)))


def unseal(data: bytes, path: Path, key: bytes) -> bytes:
    """Decrypt what `seal` gave for a file of this name; UserError for another key, another name or altered bytes."""
    from cryptography.exceptions import InvalidTag

    nonce = data[len(MAGIC) : HEADER_BYTES - DIGEST_BYTES]
    digest = data[HEADER_BYTES - DIGEST_BYTES : HEADER_BYTES]
    try:
        if len(data) < HEADER_BYTES + TAG_BYTES or not data.startswith(MAGIC):
            raise InvalidTag
        return bytes(_cipher(key).decrypt(nonce, memoryview(data)[HEADER_BYTES:], _associated(path.name, digest)))
    except InvalidTag as error:
        message = f"{path}: not encrypted with this device's key, or altered since"
        raise UserError(message, "install the release again: it is encrypted anew") from error


def main(arguments: list[str]) -> int:
    """`python -m edgemask_runtime.sealed KEY FILE...`: seal files where they lie; prints their digests as JSON."""
    key_file, *files = map(Path, arguments)
    check_owner_only(key_file, "read the models", "install the release again: a device without a key gets one")
    key = read_bytes(key_file, limit_bytes=DEVICE_KEY_BYTES)
    if len(key) != DEVICE_KEY_BYTES:
        raise UserError(
            f"{key_file}: {len(key)} bytes; a device's key has {DEVICE_KEY_BYTES}", "remove it: another is made"
        )
    print(json.dumps({str(file): _seal_file(file, key) for file in files}))
    return 0


def _seal_file(path: Path, key: bytes) -> str:
    data = seal(read_bytes(path, limit_bytes=MAX_BYTES), path.name, key)
    write_atomic(path, data, mode=READABLE)
    return hashlib.sha256(data).hexdigest()


def _is_sealed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        # Why not told here: whoever opens it next tells it better.
        return False


def _associated(name: str, digest: bytes) -> bytes:
    return MAGIC + name.encode() + b"\0" + digest


def _cipher(key: bytes) -> Any:
    # Why here: only a device that encrypts needs it.
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError as error:
        hint = "pip install 'edgemask-runtime[install]'; every release brings it along"
        raise UserError("models are encrypted with `cryptography`, which is missing", hint) from error
    return ChaCha20Poly1305(key)


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:])))
