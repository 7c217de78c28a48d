"""Signatures of releases: signature.json, what exactly is signed, and whether a device believes it."""

from __future__ import annotations

import base64
import dataclasses
import json
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgemask_runtime.errors import UserError
from edgemask_runtime.strict_json import Faults, matching, parse, structure
from edgemask_runtime.trust.keyring import KEY_ID, EnrolledKey, Keys, PublicKey, base64_of

SIGNATURE_FILE = "signature.json"
SIGNATURE_BYTES, MAX_SIGNATURES, MAX_SIGNATURES_BYTES = 64, 16, 1 << 16
Algorithm = Literal["ed25519", "ed25519-development"]
DOMAINS: dict[Algorithm, bytes] = {
    "ed25519": b"edgemask release 1\0",
    "ed25519-development": b"edgemask development release 1\0",
}
"""What stands before release.json in what is signed: no signature of one kind is ever one of the other."""
SIGN = "`edgemask sign RELEASE --key NAME`"


@dataclass(frozen=True)
class Signature:
    """One key's signature."""

    key: str = field(metadata=matching(KEY_ID))
    algorithm: Algorithm
    signature: str = field(metadata=base64_of(SIGNATURE_BYTES))

    @property
    def development(self) -> bool:
        """Whether a key for development made it."""
        return self.algorithm == "ed25519-development"

    def is_of(self, signed: bytes, key: PublicKey) -> bool:
        """Whether `key` made it of these bytes, in the domain that its algorithm names."""
        ed25519, invalid = _cryptography()
        try:
            message = DOMAINS[self.algorithm] + signed
            ed25519.Ed25519PublicKey.from_public_bytes(key.raw).verify(base64.b64decode(self.signature), message)
        except (invalid, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Signatures:
    """The file signature.json."""

    schema: Literal[1] = 1
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = SIGNATURE_FILE) -> Signatures:
        """Read the file's bytes; UserError names every fault."""
        hint = f"sign the release again: {SIGN}"
        if len(data) > MAX_SIGNATURES_BYTES:
            raise UserError(f"{where}: larger than {MAX_SIGNATURES_BYTES} bytes", hint)
        faults = Faults(where)
        read: Signatures | None = structure(cls, parse(_decoded(data, where), where, hint), "$", faults)
        keys = [signature.key for signature in read.signatures] if read else []
        if len(keys) > MAX_SIGNATURES:
            faults.add("$.signatures", f"{len(keys)} signatures", allowed=f"at most {MAX_SIGNATURES}")
        for index, key in enumerate(keys):
            if key in keys[:index]:
                faults.add(f"$.signatures[{index}].key", f"value {key!r} again", allowed="one signature of a key")
        if read is None or faults:
            raise faults.error(hint)
        return read

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return (json.dumps(dataclasses.asdict(self), sort_keys=True, indent=2) + "\n").encode()

    def with_signature(self, signature: Signature) -> Signatures:
        """These and one more, which replaces an older one of the same key."""
        others = [other for other in self.signatures if other.key != signature.key]
        ordered = sorted([*others, signature], key=lambda one: one.key)
        return Signatures(signatures=tuple(ordered))


def verify(signed: bytes, signatures: Signatures, keys: Keys) -> EnrolledKey:
    """Return the enrolled key that signed release.json's bytes, one for releases before one for development.

    Signatures of keys that nobody enrolled here say nothing, good or bad; those of enrolled ones must all hold.
    """
    known = [(one, key) for one in signatures.signatures if (key := keys.find(one.key)) and one.key not in keys.revoked]
    for signature, key in known:
        _check(signed, signature, key)
    if not known:
        raise _unknown(signatures.signatures, keys)
    return min((key for _, key in known), key=lambda key: key.development)


def _check(signed: bytes, signature: Signature, key: EnrolledKey) -> None:
    if signature.development != key.development:
        made, enrolled = ("development", "releases") if signature.development else ("releases", "development")
        hint = "sign it with the key that devices enrolled for releases: " + SIGN
        raise UserError(f"the signature of key {key.id} is one for {made}; the key is enrolled for {enrolled}", hint)
    if not signature.is_of(signed, key.key):
        hint = f"copy the release again; if that does not help, build and sign it again: {SIGN}"
        raise UserError(f"the signature of key {key.id} is not one of this release.json: one of them was altered", hint)


def _unknown(signatures: Sequence[Signature], keys: Keys) -> UserError:
    names = ", ".join(one.key for one in signatures)
    enrolled = ", ".join(map(str, keys.enrolled)) or "none"
    if not signatures:
        return UserError("the release is not signed", SIGN)
    if all(one.key in keys.revoked for one in signatures):
        return UserError(f"the release is signed by {names}, which was revoked on this device", f"sign anew: {SIGN}")
    message = f"the release is signed by {names}, which is not enrolled here; enrolled: {enrolled}"
    if all(one.development for one in signatures):
        hint = "a development key: --allow-dev-key with --enrol development.pub enrols it; for the field, sign it: "
        return UserError(f"{message}; it is a development signature", hint + SIGN)
    return UserError(message, f"sign it with an enrolled key, {SIGN}, or enrol this one: --enrol NAME.pub")


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text", f"sign the release again: {SIGN}") from error


def _cryptography() -> tuple[types.ModuleType, type[Exception]]:
    # Why here: a first install on a board has no such library yet, and needs only to enrol keys.
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        hint = "pip install 'edgemask-runtime[install]'; every release brings it along"
        raise UserError("signatures are checked with `cryptography`, which is missing", hint) from error
    return ed25519, InvalidSignature
