"""Releases onto a device over ssh: first, next, bad, refused, broken off."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from edgemask.device.destination import Destination
from edgemask.device.flash import Outcome, flash
from edgemask.device.home import WENT_BACK, ask_device
from edgemask.errors import UserError
from edgemask.signing import development_key, keygen, sign
from edgemask_runtime.release import Release
from edgemask_runtime.trust import Signatures

from .far import BOARD, Far, agree, with_python
from .sshd import needs_sshd

pytestmark = needs_sshd


def failed(outcome: Outcome) -> UserError:
    assert outcome.error, outcome
    return outcome.error


def test_a_first_install_and_an_update(far: Far) -> None:
    steps: list[str] = []
    first = far.flash(far.maker.release(1), lambda step, *_: steps.append(step))
    assert first.error is None
    assert first.installed
    assert (first.installed["serial"], first.installed["slot"]) == (1, "a")
    assert far.runs(1)
    order = list(dict.fromkeys(steps))
    assert order.index("connect") < order.index("look") < order.index("send") < order.index("check")
    assert order.index("check") < order.index("unpack") < order.index("switch")
    second = far.flash(far.maker.release(2), enrol=None)
    assert second.error is None
    assert far.runs(2)
    assert second.plan
    assert second.plan.to_json()["installed"] == "tiny 1.0 (serial 1)"
    assert list((far.sshd.cache / "incoming").iterdir()) == []
    with far.connect() as ssh:
        told = ask_device(ssh, far.home, "status")
    assert (told["installed"]["serial"], told["previous"]["serial"]) == (2, 1)


def test_a_dry_run_changes_nothing(far: Far) -> None:
    outcome = far.flash(far.maker.release(1), dry_run=True)
    assert (outcome.error, outcome.installed) == (None, None)
    assert outcome.plan
    assert all(check.passed for check in outcome.plan.checks)
    assert not far.layout.root.exists()
    assert not far.sshd.cache.exists()


def test_a_person_who_says_no(far: Far) -> None:
    (outcome,) = flash(far.maker.release(1), [BOARD], far.options(), lambda *_: None, lambda _: False)
    assert (outcome.error, outcome.installed) == (None, None)
    assert not far.layout.root.exists()


def test_a_version_that_does_not_run_is_taken_back(far: Far) -> None:
    far.flash(far.maker.release(1))
    error = failed(far.flash(far.maker.release(2, "crash")))
    assert error.exit_code == WENT_BACK
    assert error.message.startswith("board: tiny 2.0 (serial 2) was taken back")
    assert str(error.hint).startswith("tiny 1.0 (serial 1) runs again")
    assert far.runs(1)


def test_models_that_cannot_be_encrypted_are_not_installed(far: Far) -> None:
    """The tiny releases bring the runtime without what it needs to encrypt them."""
    error = failed(far.flash(far.maker.release(1), encrypt_models=True))
    assert "the models cannot be encrypted: " in error.message
    assert "No module named" in error.message
    assert far.layout.running() is None


@pytest.mark.slow
def test_an_older_release_is_refused_by_the_device(far: Far) -> None:
    far.flash(far.maker.release(5, min_serial=5))
    error = failed(far.flash(far.maker.release(4)))
    assert error.exit_code == 2
    assert "its serial is 4; this device takes 5 or above" in error.message
    assert far.runs(5)


def test_all_that_is_in_the_way_is_told_at_once_and_nothing_is_sent(far: Far) -> None:
    release = far.maker.release(1, arch="armv7l", boards=("acme,toaster",), glibc="2.999", memory_mb=1 << 20)
    error = failed(far.flash(release))
    for part in ("processor: ", "board: ", "glibc: ", "memory: "):
        assert f"board: {part}" in error.message
    assert "acme,toaster" in error.message
    assert "edgemask targets" in str(error.hint)
    assert not far.sshd.cache.exists()


def test_a_key_that_nobody_here_has(far: Far) -> None:
    error = failed(far.flash(far.maker.release(1), enrol=None))
    assert f"signed by {far.maker.key.id}; none of your keys in " in error.message
    assert "--enrol NAME.pub" in str(error.hint)


def test_a_first_device_enrols_only_a_key_that_signed(far: Far) -> None:
    """Though a key of this user's signed, and would be enrolled without --enrol."""
    own, other = development_key(), keygen("other")
    far.maker.signature = lambda signed: Signatures.from_bytes(sign(signed, own)).signatures[0]  # type: ignore[method-assign]
    error = failed(far.flash(far.maker.release(1), enrol=other.path.with_suffix(".pub"), allow_dev_key=True))
    assert f"signed by {own.public.id}, not by the key in {other.path.with_suffix('.pub')}" in error.message
    assert not far.layout.root.exists()


def test_a_development_key_only_where_it_is_allowed(far: Far, tmp_path: Path) -> None:
    """A key of this user's own needs no --enrol."""
    key = development_key()
    far.maker.signature = lambda signed: Signatures.from_bytes(sign(signed, key)).signatures[0]  # type: ignore[method-assign]
    release = far.maker.release(1)
    error = failed(far.flash(release, enrol=None))
    assert "signature: a development key" in error.message
    assert "--allow-dev-key" in str(error.hint)
    assert not far.layout.root.exists()
    assert far.flash(release, enrol=None, allow_dev_key=True).error is None
    assert far.runs(1)


def test_a_release_that_is_not_sound_is_refused_before_any_device_is_asked(far: Far) -> None:
    path = far.maker.release(1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a sound release"):
        far.flash(path)
    assert far.sshd.connections == []


def test_a_signature_that_is_not_the_keys(far: Far, tmp_path: Path) -> None:
    """The signature of another release under the same key."""
    good = Release.open(far.maker.release(1))
    far.maker.signature = lambda _: good.signatures.signatures[0]  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"is not one of this release\.json"):
        far.flash(far.maker.release(2))


def test_settings_of_the_owner(far: Far, tmp_path: Path) -> None:
    settings = tmp_path / "mine.toml"
    settings.write_text("schema = 1\n# mine\n")
    assert far.flash(far.maker.release(1), settings=settings).error is None
    assert far.layout.settings.read_text() == settings.read_text()
    assert not far.layout.settings.is_symlink()
    settings.write_text("schema = 1\n# worse\n")
    assert far.flash(far.maker.release(2, "cold"), settings=settings).error
    assert "# mine" in far.layout.settings.read_text()
    assert far.runs(1)


def test_a_connection_lost_while_sending_goes_on_from_there(far: Far) -> None:
    """The device keeps what arrived, and the second attempt is told to send less."""
    release = far.maker.write(1, {"units/large.service": os.urandom(8 << 20)})

    def cut(step: str, done: int, of: int) -> None:
        if step == "send" and done > of // 2:
            far.sshd.cut()

    error = failed(far.flash(release, cut))
    assert "the connection was lost" in error.message
    assert not far.layout.root.exists()
    plan = far.flash(release, dry_run=True).plan
    assert plan
    assert 0 < plan.sizes.missing < plan.sizes.archive


def test_a_connection_lost_while_installing_does_not_stop_the_device(far: Far) -> None:
    far.flash(far.maker.release(1))

    def cut(step: str, done: int, of: int) -> None:
        if step == "unpack":
            far.sshd.cut()

    error = failed(far.flash(far.maker.release(2), cut))
    assert "the connection was lost" in error.message
    assert "edgemask status board" in str(error.hint)
    assert far.runs(2)


@pytest.mark.parametrize(
    "at", ["building", *(pytest.param(step, marks=pytest.mark.slow) for step in ("send", "check", "unpack"))]
)
def test_ctrl_c_leaves_the_device_as_it_was(far: Far, at: str) -> None:
    far.flash(far.maker.release(1))

    def interrupt(step: str, done: int, of: int) -> None:
        if step == at:
            signal.raise_signal(signal.SIGINT)

    slow = far.maker.release(2, "slow")
    with pytest.raises(KeyboardInterrupt):
        far.flash(slow, interrupt)
    assert far.runs(1)
    with far.connect() as ssh:
        told = ask_device(ssh, far.home, "status")
    assert told["installed"]["serial"] == 1
    assert told["trouble"] == []
    assert far.flash(far.maker.release(3)).error is None


@pytest.mark.slow
def test_somebody_else_installs_at_this_moment(far: Far) -> None:
    far.flash(far.maker.release(1))
    reached, go_on = threading.Event(), threading.Event()

    def wait(step: str, done: int, of: int) -> None:
        if step == "building":
            reached.set()
            go_on.wait(60)

    other = threading.Thread(target=lambda: far.flash(far.maker.release(2, "slow"), wait), daemon=True)
    other.start()
    assert reached.wait(60)
    error = failed(far.flash(far.maker.release(3)))
    far.sshd.cut()
    go_on.set()
    other.join()
    assert "board: other installers: " in error.message
    assert '"verb": "install"' in error.message


@pytest.mark.slow
def test_several_devices_one_after_the_other(far: Far) -> None:
    nowhere = Destination("no-such-board.invalid")
    release = far.maker.release(1)
    stopped = list(flash(release, [nowhere, BOARD], far.options(), lambda *_: None, agree))
    assert [bool(outcome.error) for outcome in stopped] == [True]
    both = list(flash(release, [nowhere, BOARD], far.options(keep_going=True), lambda *_: None, agree))
    assert [bool(outcome.error) for outcome in both] == [True, False]
    assert far.runs(1)


@pytest.mark.parametrize(
    ("python", "message"),
    [("", "board: python3 is missing there"), ("echo Segmentation fault >&2; exit 139", "it failed with 139")],
)
def test_a_device_without_python(far: Far, python: str, message: str) -> None:
    shutil.rmtree(far.sshd.folder / "bin")
    with_python(far.sshd, python=python)
    assert message in failed(far.flash(far.maker.release(1))).message
