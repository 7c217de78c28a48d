"""A device whose own installer does not run any more: its Python went with an upgrade, or it is half removed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runtime.boards import HERE, WHEEL, tiny_wheel

from edgemask.device.home import Home
from edgemask.device.verbs import rollback, status, uninstall
from edgemask.errors import UserError
from edgemask.signing import keygen, load, sign
from edgemask.wheels import runtime_wheel
from edgemask_runtime.trust import Signatures

from .far import Far, with_python
from .sshd import HOST, needs_sshd

pytestmark = needs_sshd
BARE = """case "$4" in *edgemask_runtime.install*)
  export TESTS_RUNTIME="$5"; shift 5; echo "$1" >>"{asked}"
  exec "{python}" -S -B "{installer}" "{folder}" 0 "$@";;
esac
exec "{python}" "$@"
"""
GONE, OTHER = "", "#!/bin/sh\necho 3.99\nexit 1\n"


class Aged:
    """A device whose `edgemask-device` runs with its slot's Python, and on whose own one nothing is installed."""

    def __init__(self, far: Far, folder: Path) -> None:
        self.far, self.asked, self.disk = far, folder / "asked", far.layout.root.parent
        self.asked.touch()
        self.own = [str(HERE / "installer.py"), str(self.disk)]
        program = (str(far.layout.current / "venv/bin/python"), "-B", *self.own, "0")
        self.home = far.home = Home(far.home.root, far.home.settings, program, str(far.layout.card))
        shutil.rmtree(far.sshd.folder / "bin")
        told = {"asked": self.asked, "python": sys.executable, "installer": self.own[0], "folder": self.disk}
        with_python(far.sshd, python=BARE.format(**told))
        key = load(keygen().name)
        far.maker.signature = lambda signed: Signatures.from_bytes(sign(signed, key)).signatures[0]  # type: ignore[method-assign]

    def flash(self, serial: int, **changes: Any) -> UserError | None:
        wheel = runtime_wheel()
        files = {WHEEL: tiny_wheel(serial), f"wheels/{wheel.name}": wheel.read_bytes()}
        return self.far.flash(self.far.maker.write(serial, files, **changes), enrol=None).error

    def upgrade(self, python: str = GONE) -> None:
        """The Python that the slot was made with is gone, or its name is another one's."""
        for path in (self.far.layout.current / "venv/bin").glob("python*"):
            path.unlink()
        link = self.far.layout.current / "venv/bin/python"
        if python:
            link.write_text(python)
            link.chmod(0o755)
        else:
            link.symlink_to("/usr/bin/python3.99")

    def uninstall(self, **how: Any) -> list[str]:
        return uninstall(HOST, lambda *_: None, self.far.sshd.ssh_config, self.home, **how)

    def left(self) -> list[Path]:
        tops = (self.far.layout.root, self.far.layout.system, self.far.sshd.cache / "incoming")
        return [path for top in tops for path in top.rglob("*") if not path.is_dir()]


@pytest.fixture
def aged(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aged:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Aged(far, tmp_path)


@pytest.mark.parametrize("python", [GONE, OTHER], ids=["gone", "another"])
def test_flash_goes_through_after_an_upgrade_and_keeps_what_is_known(aged: Aged, python: str) -> None:
    layout = aged.far.layout
    assert aged.flash(3, min_serial=3) is None
    layout.device_key.write_bytes(b"the device's")
    keys = layout.keys.read_bytes()
    aged.upgrade(python)
    with pytest.raises(UserError, match="or its Python is gone") as error:
        status(HOST, aged.far.sshd.ssh_config, aged.home)
    assert str(error.value.hint) == "edgemask flash RELEASE --to board"
    with pytest.raises(UserError, match="or its Python is gone"):
        rollback(HOST, lambda *_: None, aged.far.sshd.ssh_config, aged.home)
    older = aged.flash(2)
    assert older
    assert "this device takes 3 or above" in older.message
    assert aged.flash(3, min_serial=3) is None
    assert aged.far.runs(3)
    told = status(HOST, aged.far.sshd.ssh_config, aged.home)
    assert (told["installed"]["slot"], told["previous"]["slot"], told["floor"]) == ("b", "a", 3)
    assert (told["trouble"], layout.keys.read_bytes()) == ([], keys)
    assert layout.device_key.read_bytes() == b"the device's"
    assert aged.asked.read_text().split() == ["install"] * 3


def test_nobody_is_believed_whom_the_device_does_not_know(aged: Aged) -> None:
    assert aged.flash(1) is None
    aged.upgrade()
    keys = json.loads(aged.far.layout.keys.read_text())
    aged.far.layout.keys.write_text(json.dumps({**keys, "enrolled": [], "revoked": [keys["enrolled"][0]["id"]]}))
    error = aged.flash(2)
    assert error
    assert "which is not enrolled here" in error.message


def test_uninstall_brings_its_own_installer(aged: Aged) -> None:
    assert aged.flash(1) is None
    aged.upgrade()
    assert str(aged.far.layout.root) in aged.uninstall()
    assert aged.left() == []
    assert aged.far.manager.state().active == "inactive"
    assert aged.asked.read_text().split() == ["install", "uninstall"]
    with pytest.raises(UserError, match="Edgemask is not installed there"):
        aged.uninstall()


def test_an_uninstall_that_was_cut_off_is_finished(aged: Aged) -> None:
    assert aged.flash(1) is None
    layout = aged.far.layout
    kept = [shutil.copytree(top, aged.disk / "kept" / top.name, symlinks=True) for top in (layout.root, layout.system)]
    for at in (4, 9, 12, 30):
        cut = [sys.executable, aged.own[0], aged.own[1], str(at), "uninstall"]
        assert subprocess.run(cut, capture_output=True, timeout=120, check=False).returncode == -9
        assert layout.root.exists()
        aged.uninstall()
        assert aged.left() == []
        for top in kept:
            shutil.rmtree(aged.disk / top.name, ignore_errors=True)
            shutil.copytree(top, aged.disk / top.name, symlinks=True)
    shutil.rmtree(layout.slots)
    layout.current.unlink()
    assert aged.flash(2) is None
    assert aged.far.runs(2)


def test_a_card_that_never_installed_can_be_cleared(aged: Aged) -> None:
    layout = aged.far.layout
    layout.card.mkdir(parents=True)
    (layout.card / "plan.json").write_text("{}")
    aged.uninstall()
    assert not layout.card.exists()


def test_a_device_with_an_old_python_is_told(aged: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemask.device import verbs

    (aged.far.layout.root / "slots").mkdir(parents=True)
    asked = verbs.ask_facts
    old = lambda *words, **named: dataclasses.replace(asked(*words, **named), python="3.9", others={})  # noqa: E731
    monkeypatch.setattr(verbs, "ask_facts", old)
    with pytest.raises(UserError, match=r"has Python 3\.9") as error:
        aged.uninstall()
    assert "3.10 or above" in str(error.value.hint)
