"""Bundles encrypted with a device's key: sealed when installed, opened by the daemon and its models' processes."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

import edgemask_runtime
from edgemask_runtime.bundle import Bundle, payload_digest
from edgemask_runtime.errors import UserError
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.keys import CREDENTIAL
from edgemask_runtime.release import Environment
from edgemask_runtime.sealed import MAGIC, main, open_stored, seal, unseal

from .boards import MODEL, PYTHON, WHEEL, Board, Maker, wheel_of
from .manager import managed
from .parts import PATIENCE_S, until
from .running import COMMAND, run_daemon
from .sandboxed import CANNOT
from .test_service import PIPELINE, Device
from .tiny import MakeBundle

KEY, NAME = bytes(range(32)), Path("models/driver-id.edgemask")
HERE = Path(__file__).parent
CPU = HERE.parents[1] / "targets" / "units" / "edgemaskd-cpu.service"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemd gives the daemon."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / CREDENTIAL).write_bytes(KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def refused(data: bytes, path: Path = NAME, key: bytes = KEY) -> None:
    with pytest.raises(UserError, match="not encrypted with this device's key, or altered since") as caught:
        unseal(data, path, key)
    assert caught.value.hint


@given(st.binary(max_size=200))
def test_what_was_sealed_comes_back_and_nothing_of_it_shows(plain: bytes) -> None:
    sealed = seal(plain, NAME.name, KEY)
    assert unseal(sealed, NAME, KEY) == plain
    assert seal(plain, NAME.name, KEY) != sealed
    assert len(plain) < 8 or plain not in sealed[len(MAGIC) :]


def test_it_is_the_cipher_that_the_docs_name() -> None:
    sealed = seal(b"weights", NAME.name, KEY)
    magic, nonce, digest, text = sealed[:18], sealed[18:30], sealed[30:62], sealed[62:]
    assert (magic, digest) == (b"edgemask sealed 1\0", hashlib.sha256(b"weights").digest())
    associated = b"edgemask sealed 1\0driver-id.edgemask\0" + digest
    assert ChaCha20Poly1305(KEY).decrypt(nonce, text, associated) == b"weights"


def test_every_bit_counts() -> None:
    sealed = seal(b"weights", NAME.name, KEY)
    for place in range(len(sealed)):
        for bit in (1, 0x80):
            refused(sealed[:place] + bytes([sealed[place] ^ bit]) + sealed[place + 1 :])
    for length in range(len(sealed)):
        refused(sealed[:length])
    refused(sealed + b"\0")


def test_another_key_or_another_files_name_opens_nothing() -> None:
    sealed = seal(b"weights", NAME.name, KEY)
    refused(sealed, key=secrets.token_bytes(32))
    refused(sealed, Path("models/other.edgemask"))
    assert unseal(sealed, Path("/elsewhere") / NAME.name, KEY) == b"weights"


def sealed_bundle(bundle: Path, to: Path, name: str = "tiny.edgemask") -> Path:
    to.write_bytes(seal(bundle.read_bytes(), name, KEY))
    return to


def test_a_sealed_bundle_is_opened_in_memory_where_the_key_is(
    make_bundle: MakeBundle, credentials: Path, tmp_path: Path
) -> None:
    plain = make_bundle()
    bundle = open_stored(sealed_bundle(plain, tmp_path / "tiny.edgemask"))
    assert bundle.manifest == Bundle.open(plain).manifest
    assert bundle.read("model.onnx") == Bundle.open(plain).read("model.onnx")
    assert open_stored(plain).content is None
    for content in (b"none", KEY + b"\n", b""):
        (credentials / CREDENTIAL).write_bytes(content)
        with pytest.raises(UserError, match="encrypted with the device's key, which is not here") as caught:
            open_stored(tmp_path / "tiny.edgemask")
        assert caught.value.hint
    with pytest.raises(UserError, match="no such bundle"):
        open_stored(tmp_path / "none.edgemask")


def test_the_daemon_answers_from_a_sealed_bundle_in_its_sandbox(
    make_bundle: MakeBundle, faces: Path, credentials: Path, tmp_path: Path
) -> None:
    path = sealed_bundle(make_bundle(noisy=True), tmp_path / "tiny.edgemask")
    command = [*COMMAND, "run", path, "--source", faces, "--fps", "0", "--listen", "127.0.0.1:0"]
    boxed = [sys.executable, HERE / "sandboxed.py", CPU] if shutil.which("systemd-analyze") else []
    done = subprocess.run([*map(str, boxed + command)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == CANNOT:
        pytest.skip("this kernel has no PR_SET_MDWE, or seccomp cannot be used here")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(range(6))


def test_without_the_key_the_daemon_says_why(make_bundle: MakeBundle, faces: Path, tmp_path: Path) -> None:
    path = sealed_bundle(make_bundle(), tmp_path / "tiny.edgemask")
    done = run_daemon("run", path, "--source", faces)
    assert done.returncode == 2
    assert f"error: {path}: encrypted with the device's key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sealed_bundle_is_exchanged_while_the_daemon_runs(
    make_bundle: MakeBundle, credentials: Path, tmp_path: Path
) -> None:
    plain = [make_bundle(max_age_ms=60_000, tools={"edgemask": version}) for version in "12"]
    first, second = (sealed_bundle(path, tmp_path / f"{number}.sealed") for number, path in enumerate(plain))
    device = Device(tmp_path, first, PIPELINE.format(name="front", fps=0))
    digest = payload_digest(Bundle.open(plain[1]).manifest)
    with device.running() as daemon:
        until(lambda: len(device.answers("front")) > 5)
        shutil.copy(second, tmp_path / "new")
        (tmp_path / "new").replace(tmp_path / "tiny.edgemask")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: device.answers("front")[-1]["digest"] == digest)
        (tmp_path / "tiny.edgemask").write_bytes(second.read_bytes()[:-1] + b"?")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.said("faces: .*altered since; the bundle that ran before runs on")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_S) == 0
    answers = device.answers("front")
    assert [answer["frame"] for answer in answers] == list(range(len(answers)))


def test_files_are_sealed_where_they_lie_by_a_key_of_ones_own(tmp_path: Path) -> None:
    key, file = tmp_path / "device.key", tmp_path / "x.edgemask"
    key.write_bytes(KEY)
    file.write_bytes(b"weights")
    key.chmod(0o644)
    with pytest.raises(UserError, match="others than its owner"):
        main([str(key), str(file)])
    key.chmod(0o600)
    assert main([str(key), str(file)]) == 0
    assert unseal(file.read_bytes(), file, KEY) == b"weights"
    key.write_bytes(KEY[:-1])
    with pytest.raises(UserError, match="31 bytes; a device's key has 32"):
        main([str(key), str(file)])


SETTINGS = b"""
schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "tiny"
bundle = "models/tiny.edgemask"
"""
ENTRY_POINTS = """[console_scripts]
edgemaskd = edgemask_runtime.daemon:main
edgemask-device = edgemask_runtime.install.cli:main
"""


def real_wheel() -> bytes:
    """A wheel that brings the real daemon: it names where this test's own packages are."""
    places = {str(Path(edgemask_runtime.__file__).parents[1]), *(path for path in sys.path if "-packages" in path)}
    return wheel_of({"real.pth": "\n".join(places), "real-1.dist-info/entry_points.txt": ENTRY_POINTS})


@pytest.fixture(scope="module")
def maker(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"), make_bundle())


@pytest.fixture
def board(tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """Its manager gives the daemon the device's key, as the unit has it; installers find none in their own."""
    assert "CREDENTIALS_DIRECTORY" not in maker.env
    layout = Layout(tmp_path / "root", tmp_path / "system")
    given = tmp_path / "given"
    given.mkdir()
    (given / CREDENTIAL).symlink_to(layout.device_key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    with managed(layout, tmp_path) as manager:
        yield Board(tmp_path, layout, manager, maker)


def release(maker: Maker, serial: int) -> Path:
    environments = {PYTHON: Environment((WHEEL,), ())}
    return maker.write(serial, {WHEEL: real_wheel(), "settings.toml": SETTINGS}, environments=environments)


def installed(board: Board, serial: int, *more: str) -> dict[str, Any]:
    done = board.install(release(board.maker, serial), *more)
    assert done.returncode == 0, done.stdout + done.stderr + board.manager.said()
    board.manager.becomes("active")
    return board.status()


def models_of(board: Board) -> dict[str, bytes]:
    return {path.parts[-3]: path.read_bytes()[: len(MAGIC)] for path in board.layout.slots.glob(f"*/{MODEL}")}


def test_models_are_encrypted_from_the_moment_it_is_asked_for(board: Board) -> None:
    assert not installed(board, 1)["installed"]["encrypted"]
    assert models_of(board)["a"] != MAGIC
    # The release that runs, encrypted: it goes into the other slot.
    told = installed(board, 1, "--encrypt-models")
    assert (told["installed"]["encrypted"], told["installed"]["slot"]) == (True, "b")
    assert models_of(board)["b"] == MAGIC
    assert stat.S_IMODE(board.layout.device_key.stat().st_mode) == 0o600
    key = board.layout.device_key.read_bytes()
    # From then on without being asked, with the same key.
    assert installed(board, 2)["installed"]["encrypted"]
    assert models_of(board) == {"a": MAGIC, "b": MAGIC}
    assert board.layout.device_key.read_bytes() == key
    assert board.check() == 2
    assert not board.layout.credentials.exists()
    assert board.run("rollback").returncode == 0
    board.manager.becomes("active")
    assert board.status()["installed"]["serial"] == 1
    model = board.layout.slot("a") / MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert f"{MODEL}: not as it was installed" in board.refuses("rollback")
    # A key that was lost: the same release again makes another one.
    board.layout.device_key.unlink()
    assert installed(board, 1)["installed"]["encrypted"]
    assert board.layout.device_key.read_bytes() != key


def test_a_rollback_to_plain_models_does_not_end_their_encryption(board: Board) -> None:
    installed(board, 1)
    installed(board, 2, "--encrypt-models")
    assert board.run("rollback").returncode == 0
    board.manager.becomes("active")
    assert not board.status()["installed"]["encrypted"]
    assert installed(board, 3)["installed"]["encrypted"]
    assert models_of(board)["b"] == MAGIC
    # As it is where the state was lost, too: whatever slot tells of it is believed.
    assert board.run("rollback").returncode == 0
    board.manager.becomes("active")
    board.layout.state.unlink()
    assert board.run("recover").returncode == 0
    assert installed(board, 4)["installed"]["encrypted"]
