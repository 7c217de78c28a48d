"""Signing a release that is built already: here, again, or on another machine."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgemask import inspect, signing
from edgemask.cli import app
from edgemask.errors import UserError
from edgemask.release_signatures import sign_release, take_signatures, who_signed
from edgemask_runtime.release import Release
from edgemask_runtime.trust import Keys, PublicKey, Signatures, verify

from .releases import write_tiny_release
from .tiny import MakeBundle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "edgemask" / "keys"


@pytest.fixture
def unsigned(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    return write_tiny_release(tmp_path / "tiny-host.release", make_bundle(), Signatures())


def key(name: str) -> signing.SigningKey:
    signing.keygen(name)
    return signing.load(name)


def believed(path: Path, public: PublicKey) -> bool:
    release = Release.open(path)
    try:
        return verify(release.signed, release.signatures, Keys().enrol(public, "test")).id == public.id
    except UserError:
        return False


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "signature.json"}


def test_a_signature_is_added_and_nothing_else_changes(unsigned: Path) -> None:
    old, new, before = key("old"), key("new"), contents(unsigned)
    sign_release(unsigned, old)
    assert (believed(unsigned, old.public), believed(unsigned, new.public)) == (True, False)
    once = unsigned.read_bytes()
    sign_release(unsigned, old)
    assert unsigned.read_bytes() == once
    sign_release(unsigned, new)
    assert (believed(unsigned, old.public), believed(unsigned, new.public)) == (True, True)
    assert contents(unsigned) == before


def test_a_release_is_signed_on_another_machine(
    unsigned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "signing machine"))
    other, copy = key("field"), tmp_path / "copy.release"
    shutil.copy(unsigned, copy)
    sign_release(copy, other, tmp_path / "signature.json")
    assert copy.read_bytes() == unsigned.read_bytes()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = key("own")
    sign_release(unsigned, own)
    signed = take_signatures(unsigned, tmp_path / "signature.json")
    assert [(one.name, one.good) for one in signed if one.key == own.public.id] == [("own", True)]
    assert [(one.name, one.good) for one in signed if one.key == other.public.id] == [(None, None)]
    assert all(one.good for one in who_signed(Release.open(unsigned), [other.public]))
    assert believed(unsigned, own.public)
    assert believed(unsigned, other.public)


def test_a_signature_of_another_release_is_not_taken_in(
    unsigned: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    own, before = key("own"), unsigned.read_bytes()
    other = write_tiny_release(tmp_path / "other.release", make_bundle(), Signatures(), serial=4)
    sign_release(other, own, tmp_path / "signature.json")
    with pytest.raises(UserError, match=f"the signature of key {own.public.id} is not one of"):
        take_signatures(unsigned, tmp_path / "signature.json")
    assert unsigned.read_bytes() == before
    swapped = Release.open(unsigned)
    sign_release(other, own)
    swapped = dataclasses.replace(swapped, signatures=Release.open(other).signatures)
    assert [one.good for one in who_signed(swapped)] == [False]


def test_the_command_line_signs_and_says_who_signed(unsigned: Path, tmp_path: Path) -> None:
    def edgemask(*arguments: str | Path) -> str:
        return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).output

    signing.keygen()
    development = signing.development_key()
    assert "(release): good" in edgemask("sign", unsigned)
    assert "(development): good" in edgemask("sign", unsigned, "--key", "development")
    listed = json.loads(edgemask("sign", unsigned, "--json"))
    assert sorted((one["name"], one["development"], one["good"]) for one in listed) == [
        ("development", True, True),
        ("release", False, True),
    ]
    edgemask("sign", unsigned, "--key", "development", "--out", tmp_path / "signature.json")
    assert development.public.id in edgemask("sign", unsigned, "--signature", tmp_path / "signature.json")


def test_signing_and_taking_signatures_are_two_things(unsigned: Path, tmp_path: Path) -> None:
    own = key("own")
    sign_release(unsigned, own, tmp_path / "signature.json")
    before = unsigned.read_bytes()
    for option in (["--key", "own"], ["--out", "x.json"]):
        words = ["sign", str(unsigned), "--signature", str(tmp_path / "signature.json"), *option]
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, UserError)
        assert "--signature takes signatures that were made already" in done.exception.message
    assert unsigned.read_bytes() == before


def test_inspect_holds_a_release_to_a_key(unsigned: Path, tmp_path: Path) -> None:
    own, other = key("own"), key("other")
    sign_release(unsigned, own)
    (tmp_path / "theirs.pub").write_bytes(own.public.to_pem())
    for wanted in ("own", tmp_path / "theirs.pub"):
        assert [one["good"] for one in inspect(unsigned, wanted)["signatures"]] == [True]
    with pytest.raises(UserError, match=f"signed by {own.public.id}, which is not enrolled here; .*{other.public.id}"):
        inspect(unsigned, "other")
    with pytest.raises(UserError, match="no such public key"):
        inspect(unsigned, "third")
    with pytest.raises(UserError, match="only a release is signed"):
        inspect(tmp_path / "model.onnx", "own")
