"""The signatures of a release that is built already: who made them, one more, or one from another machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgemask.errors import UserError
from edgemask.signing import KeyFile, SigningKey, key_files, signature_of
from edgemask_runtime.archive import pack
from edgemask_runtime.files import read_bytes, replacing, write_atomic
from edgemask_runtime.release import MANIFEST, Release
from edgemask_runtime.trust import PublicKey, Signature, Signatures
from edgemask_runtime.trust.signatures import MAX_SIGNATURES_BYTES, SIGNATURE_FILE


@dataclass(frozen=True)
class Signed:
    """A signature and whose it is: `good` is None where the public key is not at hand."""

    key: str
    development: bool
    name: str | None
    good: bool | None

    def __str__(self) -> str:
        kind = "development key" if self.development else "key"
        said = {True: "good", False: "NOT of this release", None: "not checked: --key NAME.pub names its public half"}
        return f"{kind} {self.key}{f' ({self.name})' if self.name else ''}: {said[self.good]}"


def who_signed(release: Release, publics: Iterable[PublicKey] = ()) -> list[Signed]:
    """Each signature, checked against these public keys and those in the folder of keys."""
    own = key_files()
    known = {key.id: key for key in (*(file.public for file in own), *publics)}
    return [_signed(release, one, known.get(one.key), own) for one in release.signatures.signatures]


def sign_release(path: Path, key: SigningKey, out: Path | None = None) -> Signature:
    """Sign a release and put the signature into it; with `out` write signature.json there, the release stays."""
    release = Release.open(path)
    made = signature_of(release.signed, key)
    signatures = release.signatures.with_signature(made)
    if out is None:
        _write(release, signatures)
    else:
        write_atomic(out, signatures.to_bytes())
    return made


def take_signatures(path: Path, file: Path) -> list[Signed]:
    """Put the signatures of a signature.json into a release; UserError if one is known not to be of this release."""
    release = Release.open(path)
    given = Signatures.from_bytes(read_bytes(file, limit_bytes=MAX_SIGNATURES_BYTES), str(file))
    signatures = release.signatures
    for signature in given.signatures:
        signatures = signatures.with_signature(signature)
    signed = who_signed(Release(release.path, release.manifest, signatures, release.signed))
    if wrong := [one.key for one in signed if one.good is False]:
        hint = f"`edgemask sign` this very release where the key is: --key NAME --out {SIGNATURE_FILE}"
        raise UserError(f"{file}: the signature of key {wrong[0]} is not one of {path}", hint)
    _write(release, signatures)
    return signed


def _signed(release: Release, signature: Signature, key: PublicKey | None, own: list[KeyFile]) -> Signed:
    name = next((file.name for file in own if file.public.id == signature.key), None)
    good = None if key is None else signature.development == key.development and signature.is_of(release.signed, key)
    return Signed(signature.key, signature.development, name, good)


def _write(release: Release, signatures: Signatures) -> None:
    """The same release with other signatures; what is signed stays as it is, byte by byte."""
    entries = {name: release.read(name) for name in release.manifest.files}
    entries |= {MANIFEST: release.signed, SIGNATURE_FILE: signatures.to_bytes()}
    with replacing(release.path) as file:
        pack(entries, file)
