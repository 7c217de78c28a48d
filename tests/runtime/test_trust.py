"""What a device believes: keys.json, signature.json and the signature itself."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgemask_runtime.errors import UserError
from edgemask_runtime.trust import Keys, PublicKey, Signature, Signatures, read_public, verify
from edgemask_runtime.trust.signatures import DOMAINS, Algorithm

SIGNED = b'{"name": "driver-id"}\n'
# RFC 8032, 7.1, tests 1 to 3: public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
# The order of the group; s and s + L sign the same, and only the smaller may be taken (RFC 8032, 5.1.7).
ORDER = 2**252 + 27742317777372353535851937790883648493


class Signer:
    """A private key, and signatures in whatever domain is asked for."""

    def __init__(self, *, development: bool = False) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = PublicKey(self.private.public_key().public_bytes_raw(), development)
        self.algorithm: Algorithm = "ed25519-development" if development else "ed25519"

    def sign(self, signed: bytes = SIGNED, algorithm: Algorithm | None = None) -> Signature:
        made = self.private.sign(DOMAINS[algorithm or self.algorithm] + signed)
        return Signature(self.key.id, self.algorithm, base64.b64encode(made).decode())


@dataclass(frozen=True)
class Changes:
    add: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    keys: Changes = field(default_factory=Changes)
    name: str = "driver-id"
    serial: int = 7


def of(*signatures: Signature) -> Signatures:
    return Signatures(signatures=signatures)


def enrolled(*signers: Signer) -> Keys:
    keys = Keys()
    for signer in signers:
        keys = keys.enrol(signer.key, "test")
    return keys


def refused(message: str, signatures: Signatures, keys: Keys, signed: bytes = SIGNED) -> None:
    with pytest.raises(UserError, match=message) as caught:
        verify(signed, signatures, keys)
    assert caught.value.hint


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(
    public: str, message: str, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DOMAINS, "ed25519", b"")
    key, raw = PublicKey(bytes.fromhex(public)), bytes.fromhex(signature)
    assert Signature(key.id, "ed25519", base64.b64encode(raw).decode()).is_of(bytes.fromhex(message), key)
    second = (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    for bad in (raw[:32] + second, raw[:32] + bytes(32), bytes(64), raw[::-1]):
        assert not Signature(key.id, "ed25519", base64.b64encode(bad).decode()).is_of(bytes.fromhex(message), key)


def test_a_signature_of_an_enrolled_key_is_believed() -> None:
    known, stranger = Signer(), Signer()
    assert verify(SIGNED, of(known.sign()), enrolled(known)).id == known.key.id
    # A stranger's signature says nothing, good or bad: devices that know only the old key take a release of both.
    for theirs in (stranger.sign(), stranger.sign(b"other")):
        assert verify(SIGNED, of(theirs, known.sign()), enrolled(known)).id == known.key.id


def test_every_signature_of_an_enrolled_key_must_hold() -> None:
    one, other = Signer(), Signer()
    refused(f"the signature of key {other.key.id} is not one", of(one.sign(), other.sign(b"x")), enrolled(one, other))


@given(place=st.integers(0, len(SIGNED) * 8 - 1))
def test_one_bit_of_the_signed_bytes_is_too_much(place: int) -> None:
    signed = bytearray(SIGNED)
    signed[place // 8] ^= 1 << place % 8
    refused("is not one of this release.json", SIGNATURES, KEYS, bytes(signed))


def test_every_byte_of_the_signature_counts() -> None:
    raw = base64.b64decode(SIGNATURES.signatures[0].signature)
    for place in range(len(raw)):
        bad = bytes(byte ^ (0x10 if at == place else 0) for at, byte in enumerate(raw))
        altered = dataclasses.replace(SIGNATURES.signatures[0], signature=base64.b64encode(bad).decode())
        refused("is not one of this release.json", of(altered), KEYS)


def test_who_signed_is_named_when_nobody_is_believed() -> None:
    known, stranger, gone = Signer(), Signer(), Signer()
    keys = enrolled(known, gone).revoke([gone.key.id])
    refused("is not signed", of(), keys)
    refused(
        f"signed by {stranger.key.id}, which is not enrolled here; enrolled: {known.key.id}", of(stranger.sign()), keys
    )
    refused(f"signed by {gone.key.id}, which was revoked", of(gone.sign()), keys)
    refused("enrolled: none", of(known.sign()), Keys())


def test_a_development_key_never_passes_for_another() -> None:
    key = Signer(development=True)
    assert verify(SIGNED, of(key.sign()), enrolled(key)).development
    refused("it is a development signature", of(key.sign()), enrolled(Signer()))
    # Its public half enrolled as an ordinary one, and what it signed renamed: the bytes that it signs are others.
    ordinary = Keys().enrol(PublicKey(key.key.raw), "test")
    refused("is one for development; the key is enrolled for releases", of(key.sign()), ordinary)
    renamed = dataclasses.replace(key.sign(), algorithm="ed25519")
    refused("is not one of this release.json", of(renamed), ordinary)
    refused("is one for releases; the key is enrolled for development", of(renamed), enrolled(key))


def test_a_key_for_releases_is_told_before_one_for_development() -> None:
    one, other = Signer(development=True), Signer()
    for order in ((one, other), (other, one)):
        assert not verify(SIGNED, of(*(signer.sign() for signer in order)), enrolled(one, other)).development


def test_a_key_with_another_ones_id_does_not_sign_for_it() -> None:
    known, forger = Signer(), Signer()
    forged = dataclasses.replace(forger.sign(), key=known.key.id)
    refused("is not one of this release.json", of(forged), enrolled(known))


def test_keys_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert Keys.read(path) == Keys()
    keys = enrolled(Signer(), Signer(development=True), Signer())
    keys = keys.revoke([keys.enrolled[2].id])
    keys.write(path)
    assert Keys.read(path) == keys
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: data["enrolled"][0].update(id="0" * 16), r"\$\.enrolled\[0\]\.id: value '0000000000000000'"),
        (lambda data: data["enrolled"][0].update(public="AAAA"), r"\$\.enrolled\[0\]\.public"),
        (lambda data: data.update(schema=2), r"\$\.schema"),
        (lambda data: data.update(enrolled={}), r"\$\.enrolled: value"),
        (lambda data: data["enrolled"][0].pop("development"), r"development: missing"),
    ],
)
def test_a_file_of_keys_that_was_meddled_with_is_refused(change, fault: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(json.dumps(dataclasses.asdict(KEYS)))
    change(data)
    (tmp_path / "keys.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=fault) as caught:
        Keys.read(tmp_path / "keys.json")
    assert caught.value.hint


def test_what_a_newer_version_says_of_keys_is_passed_over(tmp_path: Path) -> None:
    data = json.loads(json.dumps(dataclasses.asdict(KEYS)))
    data["enrolled"][0] |= {"valid_until": "2030-01-01"}
    (tmp_path / "keys.json").write_text(json.dumps(data | {"threshold": {"of": 2}}))
    assert Keys.read(tmp_path / "keys.json") == KEYS


def test_a_release_adds_and_revokes_keys() -> None:
    old, new = Signer(), Signer()
    release = Release(Changes((new.key.text,), (old.key.id,)))
    after = enrolled(old).after(release)
    assert [(key.id, key.enrolled_by) for key in after.enrolled] == [(new.key.id, "release driver-id 7")]
    assert after.revoked == (old.key.id,)
    assert after.after(release) == after
    assert enrolled(old).after(Release()) == enrolled(old)


def test_a_revoked_key_stays_revoked() -> None:
    old, new = Signer(), Signer()
    keys = enrolled(old, new).revoke([old.key.id])
    for enrol in (lambda: keys.enrol(old.key, "test"), lambda: keys.after(Release(Changes((old.key.text,))))):
        with pytest.raises(UserError, match="was revoked on this device"):
            enrol()
    with pytest.raises(UserError, match="was revoked on this device"):
        Keys(revoked=(old.key.id,)).after(Release(Changes((old.key.text,), (old.key.id,))))


def test_the_last_key_is_never_revoked() -> None:
    one, development = Signer(), Signer(development=True)
    for keys in (enrolled(one), enrolled(one, development)):
        with pytest.raises(UserError, match="no enrolled key would be left"):
            keys.revoke([one.key.id])
    with pytest.raises(UserError, match="no enrolled key would be left"):
        enrolled(development).after(Release(Changes(revoke=(development.key.id,))))
    assert enrolled(one, development).revoke([development.key.id]).enrolled == enrolled(one).enrolled


def test_one_id_is_one_key() -> None:
    key = Signer().key
    keys = Keys().enrol(key, "test")
    assert keys.enrol(key, "again") == keys
    with pytest.raises(UserError, match="is enrolled already, for releases"):
        keys.enrol(PublicKey(key.raw, development=True), "test")
    twin = dataclasses.replace(keys.enrolled[0], public=Signer().key.text)
    with pytest.raises(UserError, match="another key has the id"):
        Keys(enrolled=(twin,)).enrol(key, "test")


ENTRY = {"key": "0" * 16, "algorithm": "ed25519", "signature": base64.b64encode(bytes(64)).decode()}
UNUSUAL_BASE64 = [
    ENTRY["signature"].rstrip("="),
    ENTRY["signature"] + "\n",
    f" {ENTRY['signature']}",
    ENTRY["signature"][:-3] + "B==",
    ENTRY["signature"].replace("A", "-", 1),
    base64.b64encode(bytes(63)).decode(),
    "",
]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not valid JSON"),
        ("[" * 50_000, "not valid JSON"),
        ("[]", "allowed: an object"),
        ('{"schema": 1, "schema": 1, "signatures": []}', "repeated key 'schema'"),
        ('{"schema": 1, "signatures": [{"key": "0", "key": "0"}]}', "repeated key 'key'"),
        ('{"schema": 1.0, "signatures": []}', "schema"),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"algorithm": "none"}]}), 'algorithm: value "none"'),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"algorithm": "Ed25519"}]}), "did you mean 'ed25519'"),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"key": "0" * 15}]}), "key: value"),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"key": "A" * 16}]}), "key: value"),
        (json.dumps({"schema": 1, "signatures": [ENTRY, ENTRY]}), "one signature of a key"),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"x": 1}]}), "x: unknown key"),
        (json.dumps({"schema": 1, "signatures": [ENTRY | {"key": f"{n:016x}"} for n in range(17)]}), "at most 16"),
        (" " * 70_000, "larger than 65536 bytes"),
        *(
            (json.dumps({"schema": 1, "signatures": [ENTRY | {"signature": s}]}), "base64 of 64")
            for s in UNUSUAL_BASE64
        ),
    ],
)
def test_a_signature_file_of_another_form_is_refused(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        Signatures.from_bytes(text.encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_signatures_or_refused(data: bytes) -> None:
    try:
        read = Signatures.from_bytes(data)
    except UserError:
        return
    assert Signatures.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\u00e4", None]
)
def test_what_is_no_public_key_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.pub"
    path.write_text(KEYS.enrolled[0].key.to_pem().decode() * 2 if text is None else text)
    with pytest.raises(UserError, match="no Ed25519 public key") as caught:
        read_public(path)
    assert caught.value.hint


def test_a_public_key_survives_its_file(tmp_path: Path) -> None:
    for key in (Signer().key, Signer(development=True).key):
        (tmp_path / "x.pub").write_bytes(key.to_pem())
        assert read_public(tmp_path / "x.pub") == key


def test_trust_needs_neither_numpy_nor_cryptography_until_it_verifies() -> None:
    program = "import sys; import edgemask_runtime.trust; print({'numpy', 'cryptography'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()"


SIGNER = Signer()
KEYS, SIGNATURES = enrolled(SIGNER), of(SIGNER.sign())
