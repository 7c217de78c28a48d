"""The keys that a device believes, in keys.json, and how a release changes them."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes, write_atomic
from edgemask_runtime.strict_json import Faults, Rule, known, matching, parse, structure

KEYS_FILE = "keys.json"
KEY_ID = r"[0-9a-f]{16}"
KEY_BYTES, MAX_KEYS_BYTES, MAX_PEM_BYTES = 32, 1 << 20, 1 << 16
AFRESH = "to start afresh and forget what was revoked: `edgemask-device install RELEASE --enrol NAME.pub --reset-keys`"
DEVELOPMENT_MARK = "edgemask development key: devices refuse what it signs unless told otherwise"
PEM = re.compile(r"([^-]*)-----BEGIN PUBLIC KEY-----\s([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")
# RFC 8410: all that stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo.
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")


class KeyChanges(Protocol):
    """What a release says of keys: raw public ones in base64 to add, ids to revoke."""

    @property
    def add(self) -> tuple[str, ...]:
        """Public keys."""

    @property
    def revoke(self) -> tuple[str, ...]:
        """Ids."""


class ChangesKeys(Protocol):
    """A release's manifest, as far as it changes keys."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def serial(self) -> int:
        """Its serial."""

    @property
    def keys(self) -> KeyChanges:
        """The changes."""


@dataclass(frozen=True)
class PublicKey:
    """The 32 bytes of a public Ed25519 key, and whether it is one for development."""

    raw: bytes
    development: bool = False

    @property
    def id(self) -> str:
        """The first 16 hex digits of its SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Its base64."""
        return base64.b64encode(self.raw).decode()

    def to_pem(self) -> bytes:
        """The file NAME.pub: SubjectPublicKeyInfo, with a line above it that marks a development key."""
        body = base64.b64encode(DER_PREFIX + self.raw).decode()
        mark = f"{DEVELOPMENT_MARK}\n" if self.development else ""
        return f"{mark}-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()


def decoded(text: str, size: int) -> bytes | None:
    """The `size` bytes of a canonical base64 text, None for any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) == size and base64.b64encode(data).decode() == text else None


def base64_of(size: int) -> dict[str, Rule]:
    """Metadata for a text that is the canonical base64 of `size` bytes."""
    return Rule(f"base64 of {size} bytes", lambda text: decoded(text, size) is not None).metadata


def read_public(path: Path) -> PublicKey:
    """Read NAME.pub. UserError unless it is one Ed25519 public key in PEM."""
    # Why not cryptography: the first install on a board enrols a key before anything is installed there.
    hint = "`edgemask keygen NAME` makes NAME.pem, which signs, and NAME.pub, which devices enrol"
    try:
        found = PEM.fullmatch(read_bytes(path, limit_bytes=MAX_PEM_BYTES).decode("ascii"))
    except UnicodeDecodeError:
        found = None
    der = decoded("".join(found[2].split()), len(DER_PREFIX) + KEY_BYTES) if found else None
    if found is None or der is None or not der.startswith(DER_PREFIX):
        raise UserError(f"{path}: no Ed25519 public key in PEM", hint)
    return PublicKey(der[len(DER_PREFIX) :], DEVELOPMENT_MARK in found[1].splitlines())


@dataclass(frozen=True)
class EnrolledKey:
    """A key that the device believes, and who said that it may: a person's file, or a release."""

    id: str = field(metadata=matching(KEY_ID))
    public: str = field(metadata=base64_of(KEY_BYTES))
    development: bool
    enrolled_by: str

    @property
    def key(self) -> PublicKey:
        """The key itself."""
        return PublicKey(base64.b64decode(self.public), self.development)

    def __str__(self) -> str:
        return f"{self.id}{' (development)' if self.development else ''}"


@dataclass(frozen=True)
class Keys:
    """The keys of a device; each change gives new ones, and `write` keeps them."""

    schema: Literal[1] = 1
    enrolled: tuple[EnrolledKey, ...] = ()
    revoked: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read keys.json; a device without one believes nobody. UserError for a file that was meddled with."""
        if not path.exists():
            return cls()
        faults = Faults(str(path))
        parsed = known(cls, parse(_text(path), str(path), AFRESH))
        keys: Keys | None = structure(cls, parsed, "$", faults)
        for index, entry in enumerate(keys.enrolled if keys else ()):
            if entry.id != entry.key.id:
                faults.add(
                    f"$.enrolled[{index}].id", f"value {entry.id!r}", allowed=f"its key's own id, {entry.key.id}"
                )
        if keys is None or faults:
            raise faults.error(AFRESH)
        return keys

    def write(self, path: Path) -> None:
        """Write keys.json; a power cut leaves the old file or the new one."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, indent=2) + "\n"
        write_atomic(path, text.encode(), mode=0o644)

    def find(self, key_id: str) -> EnrolledKey | None:
        """The enrolled key of this id."""
        return next((key for key in self.enrolled if key.id == key_id), None)

    def enrol(self, key: PublicKey, by: str) -> Keys:
        """The keys with one more. UserError for one that was revoked, or that has another one's id."""
        if key.id in self.revoked:
            hint = "a revoked key stays revoked: sign with another one, `edgemask keygen NAME` makes it"
            raise UserError(f"key {key.id} was revoked on this device", hint)
        known = self.find(key.id)
        if known is None:
            return replace(self, enrolled=(*self.enrolled, EnrolledKey(key.id, key.text, key.development, by)))
        if known.public != key.text:
            raise UserError(f"another key has the id {key.id} here", "make another key: `edgemask keygen NAME`")
        if known.development != key.development:
            kind = "development" if known.development else "releases"
            raise UserError(f"key {key.id} is enrolled already, for {kind}", "use the file that keygen wrote")
        return self

    def revoke(self, ids: Iterable[str]) -> Keys:
        """The keys without these, which never come back. UserError if no key for releases would be left."""
        gone = sorted({*self.revoked, *ids})
        left = tuple(key for key in self.enrolled if key.id not in gone)
        ordinary = [key for key in self.enrolled if not key.development]
        if (self.enrolled and not left) or (ordinary and all(key.development for key in left)):
            hint = "enrol its successor first, or in the same release: `keys.add`"
            raise UserError("no enrolled key would be left: the device could never be updated again", hint)
        return replace(self, enrolled=left, revoked=tuple(gone))

    def after(self, release: ChangesKeys) -> Keys:
        """The keys once this release is committed: first those that it adds, then without those that it revokes."""
        keys, by = self, f"release {release.name} {release.serial}"
        for index, text in enumerate(release.keys.add):
            raw = decoded(text, KEY_BYTES)
            if raw is None:
                raise UserError(f"release.json: $.keys.add[{index}]: value {text[:60]!r}", "base64 of a raw public key")
            keys = keys.enrol(PublicKey(raw), by)
        return keys.revoke(release.keys.revoke)


def _text(path: Path) -> str:
    try:
        return read_bytes(path, limit_bytes=MAX_KEYS_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text", AFRESH) from error
    except UserError as error:
        raise UserError(error.message, AFRESH) from error
