"""The keys that sign releases, and their signatures: PEM files of one user, outside every repository."""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgemask.errors import UserError
from edgemask_runtime.files import read_bytes, write_atomic
from edgemask_runtime.keys import OWNER_ONLY, check_owner_only
from edgemask_runtime.trust import PublicKey, Signature, Signatures, read_public
from edgemask_runtime.trust.keyring import DEVELOPMENT_MARK, MAX_PEM_BYTES
from edgemask_runtime.trust.signatures import DOMAINS, Algorithm

DEVELOPMENT, RELEASE = "development", "release"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
Ask = Callable[[str], str]
"""Asks a person for the passphrase of the key file that it is told."""


@dataclass(frozen=True)
class SigningKey:
    """A private key in memory, under the name of its file."""

    name: str
    private: Ed25519PrivateKey
    development: bool

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.private.public_key().public_bytes_raw(), self.development)


@dataclass(frozen=True)
class KeyFile:
    """A key in the folder of keys, as its public file tells of it."""

    name: str
    path: Path
    public: PublicKey

    def to_json(self) -> dict[str, Any]:
        """As values for JSON; `public` is what a release's `keys.add` takes."""
        return {
            "name": self.name,
            "id": self.public.id,
            "development": self.public.development,
            "public": self.public.text,
            "private_file": str(self.path),
            "public_file": str(self.path.with_suffix(".pub")),
        }


def keys_folder() -> Path:
    """Where keys lie: ~/.config/edgemask/keys, or under XDG_CONFIG_HOME."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".config"
    return base / "edgemask" / "keys"


def keygen(name: str = RELEASE, *, development: bool = False, passphrase: str | None = None) -> KeyFile:
    """Make a key pair: NAME.pem for its owner alone, and NAME.pub; UserError where there is one of this name."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"key name {name!r}", "letters, digits, - and _; it becomes NAME.pem and NAME.pub")
    if development != (name == DEVELOPMENT):
        problem = "is the development key's name" if name == DEVELOPMENT else "is no name for the development key"
        raise UserError(f"{name!r} {problem}", "`edgemask keygen --development` makes it")
    key = SigningKey(name, Ed25519PrivateKey.generate(), development)
    path = keys_folder() / f"{name}.pem"
    _make_folder(path.parent)
    _check_no_public(path)
    _write_new(path, _pem(key, passphrase))
    write_atomic(path.with_suffix(".pub"), key.public.to_pem())
    return KeyFile(name, path, key.public)


def development_key() -> SigningKey:
    """This user's development key, made now if there is none."""
    path = keys_folder() / f"{DEVELOPMENT}.pem"
    if not path.exists():
        try:
            keygen(DEVELOPMENT, development=True)
        except UserError:
            # Why: another build may have made it at this moment.
            if not path.exists():
                raise
    return load(DEVELOPMENT)


def load(key: str | Path, ask: Ask | None = None) -> SigningKey:
    """The private key of this name, or in this file; its rights must be its owner's alone.

    `ask` is called for the passphrase of a file that has one.
    """
    path = _place(key)
    check_owner_only(path, "sign with this key", "`edgemask keygen NAME` makes a key, `edgemask keys` lists them")
    pem = read_bytes(path, limit_bytes=MAX_PEM_BYTES)
    private = _private(pem, path, ask)
    loaded = SigningKey(path.stem, private, DEVELOPMENT_MARK.encode() in pem.splitlines())
    if path.parent == keys_folder() and not path.with_suffix(".pub").exists():
        write_atomic(path.with_suffix(".pub"), loaded.public.to_pem())
    return loaded


def signature_of(signed: bytes, key: SigningKey) -> Signature:
    """The key's signature of release.json's bytes."""
    algorithm: Algorithm = "ed25519-development" if key.development else "ed25519"
    made = base64.b64encode(key.private.sign(DOMAINS[algorithm] + signed)).decode()
    return Signature(key.public.id, algorithm, made)


def sign(signed: bytes, key: SigningKey, signatures: bytes | None = None) -> bytes:
    """signature.json with the key's signature of release.json's bytes, beside those of other keys in `signatures`."""
    before = Signatures() if signatures is None else Signatures.from_bytes(signatures)
    return before.with_signature(signature_of(signed, key)).to_bytes()


def public_key(key: str | Path) -> PublicKey:
    """The public key of that name, or in that file."""
    named = isinstance(key, str) and re.fullmatch(NAME, key) is not None
    path = keys_folder() / f"{key}.pub" if named else Path(key)
    if not path.exists():
        raise UserError(f"{path}: no such public key", "`edgemask keys` lists yours; or name a .pub file")
    return read_public(path)


def key_files() -> list[KeyFile]:
    """The keys in the folder of keys; one whose public half cannot be read is named to the user, and left out."""
    return list(_key_files())


def _key_files() -> Iterator[KeyFile]:
    for path in sorted(keys_folder().glob("*.pub")):
        if not path.with_suffix(".pem").is_file():
            continue
        try:
            yield KeyFile(path.stem, path.with_suffix(".pem"), read_public(path))
        except UserError as error:
            mend = f"delete it, and the next `--key {path.stem}` writes it anew"
            print(f"note: {error.message}: passed over; {mend}", file=sys.stderr, flush=True)


def _place(key: str | Path) -> Path:
    named = isinstance(key, str) and re.fullmatch(NAME, key) is not None
    path = keys_folder() / f"{key}.pem" if named else Path(key)
    if not path.exists():
        names = ", ".join(file.stem for file in sorted(keys_folder().glob("*.pem"))) or "none"
        hint = f"keys of yours: {names}; `edgemask keygen{f' {key}' if named else ' NAME'}` makes one"
        raise UserError(f"{path}: no such key", hint)
    return path


def _private(pem: bytes, path: Path, ask: Ask | None) -> Ed25519PrivateKey:
    try:
        passphrase = _passphrase(pem, path, ask)
        private = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "the passphrase is not the one of this key" if ENCRYPTED in pem else "no private key in PKCS#8 PEM"
        raise UserError(f"{path}: {reason}", "`edgemask keygen NAME` makes a key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UserError(f"{path}: no Ed25519 key", "releases are signed with Ed25519 alone: `edgemask keygen NAME`")
    return private


def _passphrase(pem: bytes, path: Path, ask: Ask | None) -> bytes | None:
    if ENCRYPTED not in pem:
        return None
    if ask is None:
        raise UserError(f"{path}: has a passphrase", "`edgemask sign RELEASE --key NAME` asks for it")
    return ask(str(path)).encode()


def _pem(key: SigningKey, passphrase: str | None) -> bytes:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return f"{DEVELOPMENT_MARK}\n".encode() + pem if key.development else pem


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot make this folder: {error.strerror}", "XDG_CONFIG_HOME names another"
        ) from error


def _check_no_public(path: Path) -> None:
    """UserError where somebody's public key lies under the new key's name: devices may have to be told of it."""
    public = path.with_suffix(".pub")
    if public.exists() and not path.exists():
        raise UserError(f"{public}: is the public half of another key", "take another name, or move that file away")


def _write_new(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, unless there is one: of two that write at once, one wins and one is told."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            whole = Path(beside) / path.name
            write_atomic(whole, data, mode=OWNER_ONLY)
            os.link(whole, path)
    except FileExistsError as error:
        hint = "another name makes another key; a lost key is lost for good, so this one stays"
        raise UserError(f"{path}: there is a key already", hint) from error
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}", "XDG_CONFIG_HOME names another folder") from error
