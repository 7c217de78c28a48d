"""What lies in the user's home on a device: Python looks there first, unless it is told not to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgemask.device.facts import ask_facts
from edgemask.device.flash import bare
from edgemask.device.ssh import Ssh
from edgemask.device.upload import Inbox, Parcel
from edgemask.device.verbs import rollback, uninstall
from edgemask.wheels import runtime_wheel

from .far import BOARD, Far, with_python
from .sshd import HOST, Sshd, needs_sshd

pytestmark = needs_sshd
MARK = "raise SystemExit('run from the home folder')\n"
SENT = ("hashlib", "json", "platform", "shutil", "signal", "subprocess", "threading")


def hostile_home(board: Sshd) -> Path:
    """A home with modules named as the standard library's and as Edgemask's, where commands start."""
    home = board.folder / "home"
    for name in ("edgemask_runtime", "edgemask_runtime/install", "onnxruntime"):
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").write_text(MARK)
    for name in SENT:
        (home / f"{name}.py").write_text(MARK)
    started = f'ForceCommand cd {home} && eval "$SSH_ORIGINAL_COMMAND"'
    board.configure(started, environment=f"PATH={board.folder / 'bin'}")
    return home


def test_programs_that_are_sent_take_nothing_from_there(far: Far) -> None:
    hostile_home(far.sshd)
    with far.connect() as ssh:
        facts = ask_facts(ssh, far.home, ("onnxruntime", "no_such_thing"), (f"3.{sys.version_info.minor}",))
        assert facts.packages["no_such_thing"] is False
        parcel = Parcel.of("some.release", b"content")
        assert Path(Inbox(ssh).send(parcel, lambda *_: None)).read_bytes() == b"content"
    for serial in (1, 2):
        assert far.flash(far.maker.release(serial)).error is None
    assert rollback(HOST, lambda *_: None, far.sshd.ssh_config, far.home)["serial"] == 1
    assert uninstall(HOST, lambda *_: None, far.sshd.ssh_config, far.home)


def test_a_folder_there_is_no_package(far: Far) -> None:
    home = hostile_home(far.sshd)
    (home / "edgemask_made_up").mkdir()
    (home / "edgemask_made_up" / "__init__.py").write_text("")
    with far.connect() as ssh:
        assert ask_facts(ssh, far.home, ("edgemask_made_up",)).packages == {"edgemask_made_up": False}


def test_the_first_install_runs_the_wheel_that_was_sent(
    board: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The installer of the wheel, not the folder of its name in the home that it starts in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with_python(board)
    hostile_home(board)
    with Ssh(BOARD, board.ssh_config) as ssh:
        done = ssh.run([*bare("python3", str(runtime_wheel())), "--help"])
    assert (done.code, done.err) == (0, "")
    assert "rollback" in done.text
