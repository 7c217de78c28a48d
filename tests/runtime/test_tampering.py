"""A release in an attacker's hands: whatever is changed in it, it is refused, and told where.

First every region of the archive, byte by byte, as an accident or a blunt knife leaves it; then by somebody who knows
the format and makes sound archives; at last by somebody who has other genuine releases of the same maker.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemask_runtime.archive import file_records, pack
from edgemask_runtime.errors import UserError
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.state import State
from edgemask_runtime.install.trusting import Order, accept
from edgemask_runtime.release import MANIFEST, Release, ReleaseManifest
from edgemask_runtime.trust import Accepted, Facts, Keys, PublicKey, Signature, Signatures, check
from edgemask_runtime.trust.signatures import DOMAINS, SIGNATURE_FILE

from .boards import Board, Maker
from .manager import managed
from .releases import MODEL, UNIT, WHEEL, files_around, manifest_around
from .tiny import MakeBundle

PRIVATE = Ed25519PrivateKey.generate()
KEY = PublicKey(PRIVATE.public_key().public_bytes_raw())
KEYS = Keys().enrol(KEY, "test")
HERE = Facts(
    floor=3,
    clock_s=1_800_000_000,
    newest_s=0,
    arch="aarch64",
    boards=(),
    python="3.11",
    glibc="2.36",
    memory_mb=906,
)
HEADER_BYTES = 30
Entries = dict[str, bytes]


def signed(manifest: ReleaseManifest, private: Ed25519PrivateKey = PRIVATE, named: str = KEY.id) -> Entries:
    """The two entries that make a release of files."""
    content = manifest.to_json().encode()
    return {MANIFEST: content, SIGNATURE_FILE: signature_of(content, private, named)}


def signature_of(content: bytes, private: Ed25519PrivateKey, named: str) -> bytes:
    made = base64.b64encode(private.sign(DOMAINS["ed25519"] + content)).decode()
    return Signatures(signatures=(Signature(named, "ed25519", made),)).to_bytes()


def packed(entries: Entries) -> bytes:
    to = io.BytesIO()
    pack(entries, to)
    return to.getvalue()


def judged(path: Path, data: bytes) -> Accepted:
    """What a device with the key says to these bytes."""
    path.write_bytes(data)
    return check(Release.open(path), KEYS, HERE)


def refused(path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        judged(path, data)
    assert caught.value.hint


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle()


@pytest.fixture(scope="module")
def files(bundle: Path) -> Entries:
    return files_around(bundle)


@pytest.fixture(scope="module")
def manifest(bundle: Path, files: Entries) -> ReleaseManifest:
    return manifest_around(bundle, files)


@pytest.fixture(scope="module")
def entries(files: Entries, manifest: ReleaseManifest) -> Entries:
    return {**files, **signed(manifest)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny-host.release"


def regions(data: bytes) -> Iterator[tuple[str, int, int]]:
    """What every byte of the archive belongs to: an entry's header or content, or the directory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            begin = entry.header_offset + HEADER_BYTES + len(entry.filename)
            yield f"the header of {entry.filename}", entry.header_offset, begin
            yield entry.filename, begin, begin + entry.file_size
        yield "the directory", archive.start_dir, len(data)


def swept(path: Path, data: bytes, every: int) -> None:
    """Flip every byte of headers and directory, and one of `every` bytes of contents."""
    at = 0
    for name, begin, end in regions(data):
        assert begin == at
        plain = name.startswith("the ")
        for place in range(begin, end, 1 if plain else every):
            bent = data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
            refused(path, bent, "tiny-host.release: " if plain else name)
        at = end
    assert at == len(data)


def test_an_honest_release_is_accepted(path: Path, entries: Entries) -> None:
    assert judged(path, packed(entries)) == Accepted(KEYS.enrolled[0])


def test_no_region_of_a_release_can_be_changed(path: Path, entries: Entries) -> None:
    swept(path, packed(entries), every=17)


@pytest.mark.slow
def test_no_byte_of_a_release_can_be_changed(path: Path, entries: Entries) -> None:
    swept(path, packed(entries), every=1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_no_part_of_a_release_is_one(path: Path, entries: Entries, share: float) -> None:
    data = packed(entries)
    refused(path, data[: int(len(data) * share)], "the file is incomplete")


@pytest.mark.parametrize("name", [WHEEL, MODEL, UNIT, "settings.toml", "sbom.cdx.json", "evidence.json"])
def test_a_file_that_was_exchanged_is_named(path: Path, entries: Entries, name: str) -> None:
    bent = bytes([entries[name][0] ^ 1]) + entries[name][1:]
    refused(path, packed(entries | {name: bent}), f"{name} does not have the digest")
    refused(path, packed(entries | {name: entries[name] + b" "}), f"{name} does not have the .* bytes")
    left = {other: content for other, content in entries.items() if other != name}
    refused(path, packed(left), f"{name} is missing")


@pytest.mark.parametrize("name", [WHEEL, UNIT, "settings.toml", "sbom.cdx.json", "evidence.json"])
def test_a_file_that_was_exchanged_with_its_record_breaks_the_signature(
    path: Path, entries: Entries, manifest: ReleaseManifest, name: str
) -> None:
    other = entries[name] + b"\n"
    restated = dataclasses.replace(manifest, files={**manifest.files, **file_records({name: other})})
    forged = entries | {name: other, MANIFEST: restated.to_json().encode()}
    refused(path, packed(forged), f"the signature of key {KEY.id} is not one of this release.json")


CHANGES: dict[str, Any] = {
    "version": "9.9",
    "serial": 99,
    "min_serial": 2,
    "expires": "2099-01-01T00:00:00Z",
    "date": "2026-11-11T00:00:00Z",
    "arch": "aarch64",
    "boards": ("raspberrypi,4-model-b",),
    "glibc": "2.17",
    "memory_mb": 1,
    "engine": "litert",
    "tools": {},
}


@pytest.mark.parametrize("field", CHANGES)
def test_no_statement_of_the_manifest_can_be_changed(
    path: Path, entries: Entries, manifest: ReleaseManifest, field: str
) -> None:
    other = dataclasses.replace(manifest, **{field: CHANGES[field]})
    assert other != manifest
    refused(path, packed(entries | {MANIFEST: other.to_json().encode()}), "is not one of this release.json")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(1, 255), name=st.sampled_from([MANIFEST, SIGNATURE_FILE]))
def test_no_byte_of_what_is_signed_can_be_changed(
    path: Path, entries: Entries, place: int, byte: int, name: str
) -> None:
    content = bytearray(entries[name])
    content[place % len(content)] ^= byte
    refused(
        path,
        packed(entries | {name: bytes(content)}),
        "tiny-host.release: |is not one of this release.json|not enrolled here",
    )


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "models/../../evil", "models//evil", "a\\..\\b", "models/./a", "wheels/-rf", ""]
)
def test_names_that_lead_elsewhere_are_refused(path: Path, entries: Entries, name: str) -> None:
    refused(path, packed(entries | {name: b"evil"}), "unsafe name|not a sound release")


def by_zipfile(entries: Entries, odd: zipfile.ZipInfo, data: bytes) -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in entries.items():
            if name != odd.filename:
                archive.writestr(name, content)
        archive.writestr(odd, data)
    return to.getvalue()


def test_a_link_is_refused(path: Path, entries: Entries) -> None:
    for kind in (0o120777, 0o040755, 0o020666, 0o010666):
        link = zipfile.ZipInfo(UNIT)
        link.create_system, link.external_attr = 3, kind << 16
        refused(path, by_zipfile(entries, link, b"/etc/shadow"), f"'{UNIT}' is no regular file")


def test_a_bomb_is_refused_before_it_is_unpacked(path: Path, entries: Entries) -> None:
    bomb = zipfile.ZipInfo(WHEEL)
    bomb.compress_type = zipfile.ZIP_DEFLATED
    data = by_zipfile(entries, bomb, bytes(200_000_000))
    assert len(data) < 300_000
    refused(path, data, f"'{WHEEL}' is not stored plainly")


def test_a_text_that_fills_the_memory_is_refused(path: Path, entries: Entries) -> None:
    for name, size in ((MANIFEST, (1 << 24) + 1), (SIGNATURE_FILE, (1 << 16) + 1)):
        refused(path, packed(entries | {name: b" " * size}), f"{name}.* larger than|larger than")
    refused(path, packed(entries | {MANIFEST: b"[" * 1_000_000}), f"{MANIFEST}: not valid JSON")
    refused(path, packed(entries | {MANIFEST: b'{"serial": ' + b"9" * 5000 + b"}"}), f"{MANIFEST}: not valid JSON")


def test_a_second_meaning_is_refused(path: Path, entries: Entries) -> None:
    text = entries[MANIFEST].decode()
    for other in (
        text.replace('"serial": 3', '"serial": 9, "serial": 3'),
        text.replace('"serial": 3', '"serial": 3, "Serial": 9'),
        text.replace('"serial": 3', '"serial": 3.0'),
        text.replace('"serial": 3', '"serial": true'),
    ):
        assert other != text
        refused(path, packed(entries | {MANIFEST: other.encode()}), f"{MANIFEST}: ")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_signature_file_is_refused(path: Path, entries: Entries) -> None:
    to = io.BytesIO(packed(entries))
    with zipfile.ZipFile(to, "a") as archive:
        archive.writestr(SIGNATURE_FILE, b"{}")
    refused(path, to.getvalue(), "two entries have the same name")


def bent(entries: Entries, change: Callable[[dict[str, Any]], Any]) -> Entries:
    content = json.loads(entries[SIGNATURE_FILE])
    change(content["signatures"][0])
    return entries | {SIGNATURE_FILE: json.dumps(content).encode()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.update(algorithm="none"), 'algorithm: value "none"'),
        (lambda one: one.update(algorithm="ed25519ph"), 'algorithm: value "ed25519ph"'),
        (lambda one: one.update(algorithm="ed25519-development"), "is one for development; the key is enrolled for"),
        (lambda one: one.update(key="0" * 16), "signed by 0000000000000000, which is not enrolled here"),
        (lambda one: one.update(signature=one["signature"].rstrip("=")), "base64 of 64 bytes"),
        (lambda one: one.update(signature=" " + one["signature"]), "base64 of 64 bytes"),
        (lambda one: one.update(signature=base64.b64encode(bytes(64)).decode()), "is not one of this release.json"),
        (lambda one: one.update(public=KEY.text), "public: unknown key"),
        (lambda one: one.pop("algorithm"), "algorithm: missing"),
    ],
)
def test_a_signature_of_another_form_is_refused(
    path: Path, entries: Entries, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    refused(path, packed(bent(entries, change)), reason)


def test_a_release_without_a_signature_is_refused(path: Path, entries: Entries) -> None:
    refused(path, packed(entries | {SIGNATURE_FILE: Signatures().to_bytes()}), "the release is not signed")
    left = {name: content for name, content in entries.items() if name != SIGNATURE_FILE}
    refused(path, packed(left), f"{SIGNATURE_FILE} is missing")


def test_a_signature_by_another_key_under_this_ones_id_is_refused(
    path: Path, files: Entries, manifest: ReleaseManifest
) -> None:
    other = Ed25519PrivateKey.generate()
    refused(path, packed({**files, **signed(manifest, other)}), "is not one of this release.json")
    stranger = PublicKey(other.public_key().public_bytes_raw()).id
    refused(
        path, packed({**files, **signed(manifest, other, stranger)}), f"signed by {stranger}, which is not enrolled"
    )


def test_genuine_parts_of_other_releases_do_not_mix(
    path: Path, entries: Entries, files: Entries, manifest: ReleaseManifest
) -> None:
    """Another genuine release of the same maker, its signature or its manifest, around these files."""
    newer = signed(dataclasses.replace(manifest, serial=4))
    older = signed(dataclasses.replace(manifest, serial=2))
    assert judged(path, packed({**files, **newer}))
    refused(path, packed(entries | {SIGNATURE_FILE: newer[SIGNATURE_FILE]}), "is not one of this release.json")
    refused(path, packed(entries | {MANIFEST: newer[MANIFEST]}), "is not one of this release.json")
    refused(path, packed({**files, **older}), "its serial is 2; this device takes 3 or above")
    wheel = {WHEEL: files[WHEEL] + b"newer"}
    restated = dataclasses.replace(manifest, files={**manifest.files, **file_records(wheel)})
    refused(path, packed({**files, **signed(restated)}), f"{WHEEL} does not have the")


def test_a_development_release_is_no_other(path: Path, files: Entries, manifest: ReleaseManifest) -> None:
    content = manifest.to_json().encode()
    made = base64.b64encode(PRIVATE.sign(DOMAINS["ed25519-development"] + content)).decode()
    for algorithm, reason in [("ed25519", "is not one of this"), ("ed25519-development", "is one for development")]:
        file = Signatures(signatures=(Signature(KEY.id, algorithm, made),)).to_bytes()  # type: ignore[arg-type]
        refused(path, packed({**files, MANIFEST: content, SIGNATURE_FILE: file}), reason)


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forgeries(maker: Maker) -> Iterator[tuple[str, bytes, str]]:
    """Releases that an attacker can make of the maker's, and what is said of each."""
    good, older = entries_of(maker.release(4)), entries_of(maker.release(2))
    for name in (WHEEL, MODEL, UNIT, "settings.toml", "sbom.cdx.json"):
        yield f"{name} altered", packed(good | {name: good[name][:-1] + b"!"}), f"{name} does not have the digest"
    manifest = ReleaseManifest.from_json(good[MANIFEST].decode())
    evil = {WHEEL: good[WHEEL] + b"!"}
    restated = dataclasses.replace(manifest, files={**manifest.files, **file_records(evil)})
    stranger = Ed25519PrivateKey.generate()
    yield "restated", packed(good | evil | {MANIFEST: restated.to_json().encode()}), "is not one of this release.json"
    yield "by a stranger", packed(good | evil | signed(restated, stranger, "0" * 16)), "which is not enrolled here"
    yield "under the key's id", packed(good | evil | signed(restated, stranger, maker.key.id)), "is not one of this"
    yield "unsigned", packed(good | {SIGNATURE_FILE: Signatures().to_bytes()}), "the release is not signed"
    yield "replayed", packed(older), "its serial is 2; this device takes 3 or above"
    yield "replayed manifest", packed(good | {MANIFEST: older[MANIFEST]}), "is not one of this"
    yield "swapped signature", packed(good | {SIGNATURE_FILE: older[SIGNATURE_FILE]}), "is not one of this"
    yield "path traversal", packed(good | {"wheels/../../../evil": b"x"}), "unsafe name"
    link = zipfile.ZipInfo(UNIT)
    link.create_system, link.external_attr = 3, 0o120777 << 16
    yield "link", by_zipfile(good, link, b"/etc/shadow"), "is no regular file"
    yield "cut off", packed(good)[:-1], "the file is incomplete"


def test_whatever_is_refused_the_running_version_is_untouched(bundle: Path, tmp_path: Path) -> None:
    maker, layout = Maker(tmp_path, bundle), Layout(tmp_path / "root", tmp_path / "system")
    with managed(layout, tmp_path) as manager:
        board = Board(tmp_path, layout, manager, maker)
        board.installed(3, min_serial=3)
        for what, data, reason in forgeries(maker):
            (tmp_path / "forged.release").write_bytes(data)
            said = board.refuses("install", tmp_path / "forged.release")
            assert reason in said, what
            assert "hint: " in said, what
        assert board.check() == 3


def ordered(path: Path, entries: Entries, tmp_path: Path) -> None:
    """What the installer of a device with the key does first."""
    layout = Layout(tmp_path / "device")
    layout.root.mkdir(exist_ok=True)
    KEYS.write(layout.keys)
    path.write_bytes(packed(entries))
    accept(layout, State(), Order(path))


def test_what_nobody_signed_is_not_read(path: Path, files: Entries, tmp_path: Path) -> None:
    """Any text would do: not even its syntax is looked at before its signature."""
    nonsense = b'{"schema": 1, "schema": [[['
    stranger = Ed25519PrivateKey.generate()
    named = PublicKey(stranger.public_key().public_bytes_raw()).id
    for private, key, reason in (
        (stranger, named, "not enrolled here"),
        (stranger, KEY.id, "one of them was altered"),
        (PRIVATE, KEY.id, "release.json: not valid JSON"),
    ):
        entries = {**files, MANIFEST: nonsense, SIGNATURE_FILE: signature_of(nonsense, private, key)}
        with pytest.raises(UserError, match=reason):
            ordered(path, entries, tmp_path)
    with pytest.raises(UserError, match="is not signed"):
        ordered(path, {**files, MANIFEST: nonsense, SIGNATURE_FILE: Signatures().to_bytes()}, tmp_path)


def test_a_manifest_that_would_fill_the_memory_is_not_read(path: Path, files: Entries) -> None:
    for name, size in ((MANIFEST, 1 << 20), (SIGNATURE_FILE, 1 << 16)):
        content = b"[" + b"[]," * (5 << 20) + b"[]]"
        entries = {**files, MANIFEST: b"{}", SIGNATURE_FILE: Signatures().to_bytes(), name: content}
        path.write_bytes(packed(entries))
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=f"{name} is larger than {size} bytes"):
                Release.open(path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
