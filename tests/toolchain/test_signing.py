"""The keys of a user: what lies on the disk, who may read it, and whether OpenSSL agrees with every signature."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgemask import signing
from edgemask.errors import UserError
from edgemask_runtime.trust import Keys, PublicKey, Signatures, read_public, verify
from edgemask_runtime.trust.signatures import DOMAINS

SIGNED = b'{"name": "driver-id"}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "edgemask" / "keys"


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, timeout=60)


def refused(message: str, key: str | Path, ask: signing.Ask | None = None) -> UserError:
    with pytest.raises(UserError, match=message) as caught:
        signing.load(key, ask)
    assert caught.value.hint
    return caught.value


def test_a_key_is_its_owners_alone_and_never_overwritten(folder: Path) -> None:
    made = signing.keygen("field")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = made.path.read_bytes()
    with pytest.raises(UserError, match="there is a key already"):
        signing.keygen("field")
    assert made.path.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["field.pem", "field.pub"]


def test_a_colleagues_public_key_is_not_overwritten(folder: Path) -> None:
    made = signing.keygen("field")
    made.path.unlink()
    before = (folder / "field.pub").read_bytes()
    with pytest.raises(UserError, match=r"field\.pub: is the public half of another key") as caught:
        signing.keygen("field")
    assert caught.value.hint
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("field.pub", before)]


def test_a_broken_public_key_is_named_and_the_others_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, whole = signing.keygen("broken"), signing.keygen("whole")
    (folder / "broken.pub").write_text("half a key")
    assert signing.key_files() == [whole]
    told = capsys.readouterr().err
    assert told.startswith(f"note: {folder / 'broken.pub'}: no Ed25519 public key in PEM: passed over")
    (folder / "broken.pub").unlink()
    assert signing.load("broken").public == broken.public
    assert signing.key_files() == [broken, whole]
    assert capsys.readouterr().err == ""


def test_of_builds_that_make_the_development_key_at_once_all_get_the_same() -> None:
    program = "from edgemask.signing import development_key; print(development_key().public.id)"
    builds = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(5)]
    ids = {build.communicate(timeout=60)[0].strip() for build in builds}
    assert len(ids) == 1
    assert [key.public.id for key in signing.key_files()] == list(ids)


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_openssl_reads_the_keys_and_confirms_the_signature(passphrase: str | None, tmp_path: Path) -> None:
    made = signing.keygen("field", passphrase=passphrase)
    signature = Signatures.from_bytes(
        signing.sign(SIGNED, signing.load("field", lambda _: passphrase or ""))
    ).signatures[0]
    (tmp_path / "signature").write_bytes(base64.b64decode(signature.signature))
    public = made.path.with_suffix(".pub")
    for message, confirmed in [(b"edgemask release 1\0" + SIGNED, True), (SIGNED, False)]:
        (tmp_path / "message").write_bytes(message)
        asked = ("-verify", "-rawin", "-in", tmp_path / "message", "-sigfile", tmp_path / "signature")
        assert (openssl("pkeyutl", "-pubin", "-inkey", public, *asked).returncode == 0) == confirmed
    private = openssl("pkey", "-in", made.path, "-passin", f"pass:{passphrase or ''}", "-pubout")
    assert private.stdout.decode() == public.read_text()


def test_a_key_that_openssl_made_signs_too(tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "own.pem")
    (tmp_path / "own.pem").chmod(0o600)
    key = signing.load(tmp_path / "own.pem")
    (tmp_path / "own.pub").write_bytes(openssl("pkey", "-in", tmp_path / "own.pem", "-pubout").stdout)
    assert read_public(tmp_path / "own.pub") == key.public
    verify(SIGNED, Signatures.from_bytes(signing.sign(SIGNED, key)), Keys().enrol(key.public, "test"))


def test_a_development_key_says_so_in_both_files_and_in_what_it_signs(folder: Path) -> None:
    key = signing.development_key()
    assert key.development
    assert read_public(folder / "development.pub") == PublicKey(key.public.raw, development=True)
    signature = Signatures.from_bytes(signing.sign(SIGNED, key)).signatures[0]
    assert signature.algorithm == "ed25519-development"
    key.private.public_key().verify(base64.b64decode(signature.signature), DOMAINS["ed25519-development"] + SIGNED)
    (folder / "other.pem").write_bytes((folder / "development.pem").read_bytes())
    (folder / "other.pem").chmod(0o600)
    assert signing.load("other").development


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_does_not_sign(rights: int) -> None:
    signing.keygen("field").path.chmod(rights)
    assert "chmod 600" in str(refused("others than its owner", "field").hint)


def test_a_key_that_is_not_there_names_those_that_are() -> None:
    signing.keygen("field")
    assert "keys of yours: field; `edgemask keygen filed`" in str(refused("no such key", "filed").hint)
    refused("no such key", Path("nowhere.pem"))


def test_a_passphrase_is_asked_for_and_must_be_right() -> None:
    signing.keygen("field", passphrase="right")
    refused("has a passphrase", "field")
    refused("the passphrase is not the one", "field", lambda _: "wrong")


@pytest.mark.parametrize(
    "words",
    [
        "genpkey -algorithm RSA",
        "genpkey -algorithm X25519",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP160r1",
        "genrsa -aes128 -traditional -passout pass:right",
        "",
    ],
)
def test_other_files_are_no_keys(words: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pem"
    path.write_text("hello")
    if words:
        assert openssl(*words.split(), "-out", path).returncode == 0
    path.chmod(0o600)
    refused("no Ed25519 key|no private key", path)


@pytest.mark.parametrize(
    ("name", "development"), [("../up", False), ("", False), ("a b", False), ("development", False), ("field", True)]
)
def test_names_that_are_none_are_refused(name: str, development: bool, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        signing.keygen(name, development=development)
    assert caught.value.hint
    assert not folder.exists()


def test_a_second_key_signs_beside_the_first_and_its_own_is_replaced() -> None:
    signing.keygen("old")
    signing.keygen("new")
    old, new = signing.load("old"), signing.load("new")
    both = signing.sign(SIGNED, new, signing.sign(SIGNED, old))
    assert signing.sign(SIGNED, old, both) == both
    other = Signatures.from_bytes(signing.sign(b"another", old, both))
    assert len(other.signatures) == 2
    for key in (old, new):
        assert verify(SIGNED, Signatures.from_bytes(both), Keys().enrol(key.public, "test")).id == key.public.id


def test_the_command_line_makes_and_lists_keys(folder: Path) -> None:
    def edgemask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgemask", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))

    assert "`edgemask keygen` makes one" in edgemask("keys").stdout
    made = json.loads(edgemask("keygen", "--json").stdout)
    assert json.loads(edgemask("keys", "--json").stdout) == [made]
    assert made["public"] == read_public(folder / "release.pub").text
    again = edgemask("keygen")
    assert (again.returncode, "there is a key already" in again.stderr) == (2, True)
