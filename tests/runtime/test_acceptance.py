"""Whether a release may come onto a device: every reason against it, in its order, under clocks of all kinds."""

from __future__ import annotations

import base64
import dataclasses
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgemask_runtime.errors import UserError
from edgemask_runtime.moments import seconds, text
from edgemask_runtime.release import Environment, KeyChanges, Release, ReleaseManifest
from edgemask_runtime.trust import (
    Accepted,
    Facts,
    Keys,
    PublicKey,
    Signature,
    Signatures,
    check,
    newest_after,
    this_device,
)
from edgemask_runtime.trust.clock import BORN_S, YEAR_S, check_expiry
from edgemask_runtime.trust.signatures import DOMAINS

from .releases import files_around, manifest_around
from .tiny import MakeBundle

PRIVATE, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
MADE, NOW, ENDS = "2027-03-01T00:00:00Z", "2027-06-01T00:00:00Z", "2028-03-01T00:00:00Z"
BOARD = ("raspberrypi,4-model-b", "brcm,bcm2711")
OTHERS = {"3.10": Environment((), ()), "3.13": Environment((), ())}
HERE = Facts(
    floor=3,
    clock_s=seconds(NOW),
    newest_s=seconds("2027-01-01T00:00:00Z"),
    arch="aarch64",
    boards=BOARD,
    python="3.11",
    glibc="2.36",
    memory_mb=906,
)


def public(private: Ed25519PrivateKey, *, development: bool = False) -> PublicKey:
    return PublicKey(private.public_key().public_bytes_raw(), development)


KEYS = Keys().enrol(public(PRIVATE), "test")


@pytest.fixture(scope="module")
def manifest(make_bundle: MakeBundle) -> ReleaseManifest:
    bundle = make_bundle()
    return manifest_around(bundle, files_around(bundle), date=MADE, expires=ENDS)


def signed(manifest: ReleaseManifest, private: Ed25519PrivateKey = PRIVATE, *, development: bool = False) -> Release:
    content, algorithm = manifest.to_json().encode(), "ed25519-development" if development else "ed25519"
    made = base64.b64encode(private.sign(DOMAINS[algorithm] + content)).decode()  # type: ignore[index]
    signature = Signature(public(private).id, algorithm, made)  # type: ignore[arg-type]
    return Release(Path("tiny-host.release"), manifest, Signatures(signatures=(signature,)), content)


def accepted(manifest: ReleaseManifest, facts: Facts = HERE, **changes: Any) -> Accepted:
    return check(signed(dataclasses.replace(manifest, **changes)), KEYS, facts)


def refused(message: str, manifest: ReleaseManifest, facts: Facts = HERE, **changes: Any) -> UserError:
    with pytest.raises(UserError, match=message) as caught:
        accepted(manifest, facts, **changes)
    assert caught.value.hint
    return caught.value


def test_a_release_that_fits_is_accepted_without_a_word(manifest: ReleaseManifest) -> None:
    assert accepted(manifest) == Accepted(KEYS.enrolled[0], ())
    assert accepted(manifest, arch="aarch64", boards=("x,y", BOARD[1]), serial=4, min_serial=4).notes == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "x86_64"}, r"tiny 1.0 \(serial 3\) is for x86_64; this device is aarch64"),
        ({"boards": ("nvidia,p3768",)}, "is for nvidia,p3768; this board is raspberrypi,4-model-b, brcm,bcm2711"),
        ({"memory_mb": 1000}, "needs 1000 MB of memory; this device has 906"),
        ({"environments": OTHERS}, "is for Python 3.10, 3.13; this device has 3.11"),
        ({"glibc": "2.100"}, "needs glibc 2.100; this system has 2.36"),
        ({"serial": 2}, "its serial is 2; this device takes 3 or above"),
        ({"expires": NOW}, f"expired at {NOW}: it is {NOW} by this device's clock"),
    ],
)
def test_each_reason_against_it_is_named(manifest: ReleaseManifest, changes: dict[str, Any], message: str) -> None:
    refused(message, manifest, **changes)


def test_the_first_of_several_reasons_is_told(manifest: ReleaseManifest) -> None:
    worse: dict[str, Any] = {}
    for change, message in [
        ({"serial": 2}, "its serial is 2"),
        ({"glibc": "2.100"}, "needs glibc"),
        ({"boards": ("x,y",)}, "this board is"),
        ({"arch": "x86_64"}, "is for x86_64"),
        ({"expires": NOW}, "expired"),
    ]:
        worse |= change
        refused(message, manifest, **worse)
    with pytest.raises(UserError, match="not enrolled here"):
        check(signed(dataclasses.replace(manifest, **worse), STRANGER), KEYS, HERE)


def test_a_manifest_that_was_changed_after_signing_is_refused(manifest: ReleaseManifest) -> None:
    release = signed(manifest)
    other = dataclasses.replace(manifest, serial=9)
    with pytest.raises(UserError, match="is not one of this release"):
        check(dataclasses.replace(release, manifest=other, signed=other.to_json().encode()), KEYS, HERE)


def test_a_system_without_glibc_is_told_so(manifest: ReleaseManifest) -> None:
    refused("has another C library", manifest, dataclasses.replace(HERE, glibc=None))
    refused("this board is without a device tree", manifest, dataclasses.replace(HERE, boards=()), boards=BOARD)


def test_changes_of_keys_that_are_not_possible_are_refused_beforehand(manifest: ReleaseManifest) -> None:
    own, other = KEYS.enrolled[0], public(STRANGER)
    refused("no enrolled key would be left", manifest, keys=KeyChanges(revoke=(own.id,)))
    assert accepted(manifest, keys=KeyChanges((other.text,), (own.id,))).key == own
    gone = dataclasses.replace(KEYS, revoked=(other.id,))
    with pytest.raises(UserError, match=f"key {other.id} was revoked"):
        check(signed(dataclasses.replace(manifest, keys=KeyChanges((other.text,)))), gone, HERE)


def test_a_development_signature_alone_changes_no_keys(manifest: ReleaseManifest) -> None:
    keys = KEYS.enrol(public(STRANGER, development=True), "test")
    assert check(signed(manifest, STRANGER, development=True), keys, HERE).key.development
    changing = dataclasses.replace(manifest, keys=KeyChanges((public(Ed25519PrivateKey.generate()).text,)))
    only, both = signed(changing, STRANGER, development=True), signed(changing)
    with pytest.raises(UserError, match="has a development signature only"):
        check(only, keys, HERE)
    together = dataclasses.replace(both, signatures=only.signatures.with_signature(both.signatures.signatures[0]))
    assert not check(together, keys, HERE).key.development


@pytest.mark.parametrize(
    ("clock", "newest", "date", "expires", "told"),
    [
        # A clock that may be right.
        ("2027-06-01", "2027-01-01", "2027-03-01", "2028-03-01", None),
        ("2027-06-01", "2027-01-01", "2027-03-01", None, None),
        ("2028-03-01", "2027-01-01", "2027-03-01", "2028-03-01", "expired"),
        ("2040-01-01", "2027-01-01", "2027-03-01", "2028-03-01", "expired"),
        # No battery, no network: before the release, before what the device knows, before this software.
        ("1970-01-01", "2027-01-01", "2027-03-01", "2028-03-01", "before 2027-03-01T00:00:00Z"),
        ("2027-02-01", "2027-01-01", "2027-03-01", "2028-03-01", "before 2027-03-01T00:00:00Z"),
        ("2027-02-01", "2027-05-01", None, "2028-03-01", "before 2027-05-01T00:00:00Z"),
        ("1970-01-01", "1970-01-01", None, None, "before 2026-11-01T00:00:00Z"),
        # What is known for certain is enough, whatever the clock says.
        ("1970-01-01", "2028-03-01", "2027-03-01", "2028-03-01", "expired"),
        ("1970-01-01", "2027-01-01", "2029-03-01", "2028-03-01", "expired"),
        # Set to the far future: it neither rules a release out nor goes without a word.
        ("2090-01-01", "2027-01-01", "2027-03-01", "2028-03-01", "more than 20 years after 2027-03-01"),
        ("2090-01-01", "2027-01-01", "2027-03-01", None, "more than 20 years after"),
    ],
)
def test_expiry_under_every_kind_of_clock(
    manifest: ReleaseManifest, clock: str, newest: str, date: str | None, expires: str | None, told: str | None
) -> None:
    facts = dataclasses.replace(HERE, clock_s=at(clock), newest_s=at(newest))
    dated = dataclasses.replace(manifest, date=f"{date}T00:00:00Z" if date else None)
    ending = dataclasses.replace(dated, expires=f"{expires}T00:00:00Z" if expires else None)
    if told == "expired":
        refused("the release expired at 2028-03-01T00:00:00Z", ending, facts)
    else:
        notes = accepted(ending, facts).notes
        assert (told is None and notes == ()) or (told is not None and told in notes[0])


def at(day: str) -> int:
    return seconds(f"{day}T00:00:00Z")


def test_only_signed_dates_become_certain(manifest: ReleaseManifest) -> None:
    assert newest_after(0, manifest) == seconds(MADE)
    assert newest_after(seconds(NOW), manifest) == seconds(NOW)
    assert newest_after(5, dataclasses.replace(manifest, date=None)) == 5


moments = st.integers(0, seconds("9999-01-01T00:00:00Z"))


@given(clock_s=moments, newest_s=moments, expires_s=moments)
def test_nothing_is_taken_after_it_certainly_expired(
    manifest: ReleaseManifest, clock_s: int, newest_s: int, expires_s: int
) -> None:
    facts = dataclasses.replace(HERE, clock_s=clock_s, newest_s=newest_s)
    certain_s = max(newest_s, seconds(MADE), BORN_S)
    try:
        notes = check_expiry(dataclasses.replace(manifest, expires=text(expires_s)), facts)
    except UserError:
        assert expires_s <= max(certain_s, clock_s)
        return
    assert expires_s > certain_s
    assert bool(notes) == (not certain_s <= clock_s <= certain_s + 20 * YEAR_S)
    assert notes or expires_s > clock_s


def test_a_device_knows_itself(tmp_path: Path) -> None:
    tree, system = tmp_path / "proc" / "device-tree", tmp_path / "usr" / "lib"
    tree.mkdir(parents=True)
    system.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:         927744 kB\nMemFree: 1 kB\n")
    (system / "os-release").write_text("ID=debian\n")
    os.utime(system / "os-release", (at("2027-02-01"), at("2027-02-01")))
    before = int(time.time())
    facts = this_device(7, at("2027-01-01"), tmp_path)
    assert (facts.floor, facts.boards, facts.memory_mb) == (7, BOARD, 906)
    assert facts.newest_s == at("2027-02-01")
    assert this_device(7, at("2027-03-01"), tmp_path).newest_s == at("2027-03-01")
    assert before <= facts.clock_s <= time.time()
    assert facts.arch == platform.machine()
    assert facts.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert facts.glibc == platform.libc_ver()[1]


def test_this_machine_knows_itself() -> None:
    facts = this_device(0, 0)
    assert facts.memory_mb > 100
    assert 0 < facts.newest_s < time.time()
