"""What devices are asked once something is installed there."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from edgemask.device.home import Home
from edgemask.device.verbs import logs, rollback, run, status, uninstall
from edgemask.errors import UserError

from .far import Far
from .sshd import HOST, Sshd, needs_sshd, programs

pytestmark = needs_sshd
DAEMON = """#!/bin/sh
trap 'echo stopped; exit 0' INT
echo "run $*"
while :; do sleep 0.1; done
"""


def quiet(*_: object) -> None:
    pass


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def scripted(board: Sshd, tmp_path: Path, **scripts: str) -> Home:
    """A device with these programs, whose daemon runs until it is interrupted."""
    folder = programs(board.folder / "bin", *"sh cat env id true sleep".split())
    scripts["python3"] = f'exec "{sys.executable}" "$@"'
    for name, text in scripts.items():
        put(folder / name, f"#!/bin/sh\n{text}\n")
    board.configure(environment=f"PATH={folder}")
    root = tmp_path / "root"
    put(root / "current/venv/bin/edgemaskd", DAEMON)
    put(root / "current/venv/bin/edgemask-device", "#!/bin/sh\n")
    put(root / "current/release.json", "{}")
    return Home(str(root), str(tmp_path / "edgemaskd.toml"))


def test_status_rollback_and_uninstall(far: Far) -> None:
    for serial in (1, 2):
        assert far.flash(far.maker.release(serial)).error is None
    told = status(HOST, far.sshd.ssh_config, far.home)
    assert (told["installed"]["serial"], told["previous"]["serial"]) == (2, 1)
    steps: list[str] = []
    back = rollback(HOST, lambda step, *_: steps.append(step), far.sshd.ssh_config, far.home)
    assert back["serial"] == 1
    assert "switch" in steps
    assert far.runs(1)
    removed = uninstall(HOST, quiet, far.sshd.ssh_config, far.home)
    assert str(far.layout.root) in removed
    assert not far.layout.root.exists()
    assert far.manager.state().active == "inactive"
    with pytest.raises(UserError, match="Edgemask is not installed there") as error:
        rollback(HOST, quiet, far.sshd.ssh_config, far.home)
    assert str(error.value.hint) == "edgemask flash RELEASE --to board"


def test_nothing_is_installed(board: Sshd, tmp_path: Path) -> None:
    home = Home(str(tmp_path / "nothing"))
    for verb in (
        lambda: status(HOST, board.ssh_config, home),
        lambda: rollback(HOST, quiet, board.ssh_config, home),
        lambda: uninstall(HOST, quiet, board.ssh_config, home),
        lambda: run(HOST, quiet, board.ssh_config, home),
    ):
        with pytest.raises(UserError, match="board: Edgemask is not installed there"):
            verb()


def test_the_journal(board: Sshd, tmp_path: Path) -> None:
    scripted(board, tmp_path, journalctl='echo "$@"')
    said: list[str] = []
    logs(HOST, said.append, board.ssh_config, lines=7, follow=True)
    assert said == ["-u edgemaskd.service -n 7 --no-pager -o short-iso -f"]


def test_the_journal_of_a_device_without_one(board: Sshd, tmp_path: Path) -> None:
    scripted(board, tmp_path)
    with pytest.raises(UserError, match="has no journal"):
        logs(HOST, quiet, board.ssh_config)


def test_a_journal_that_fails(board: Sshd, tmp_path: Path) -> None:
    scripted(board, tmp_path, journalctl='test "$1" = --version || { echo no such file >&2; exit 1; }')
    with pytest.raises(UserError, match="journalctl: no such file"):
        logs(HOST, quiet, board.ssh_config)


SYSTEMCTL = 'echo "$1" >>"{}"'


def test_a_run_by_hand_until_ctrl_c(board: Sshd, tmp_path: Path) -> None:
    """The service stops for it and starts afterwards; the daemon is interrupted as by hand."""
    asked = tmp_path / "asked"
    home = scripted(board, tmp_path, systemctl=SYSTEMCTL.format(asked))
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line.startswith("run"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(HOST, interrupt, board.ssh_config, home)
    assert said == [f"run run {home.settings}", "stopped"]
    assert asked.read_text().split() == ["is-active", "stop", "start"]


def test_a_run_by_hand_that_loses_its_connection(board: Sshd, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    os.mkfifo(tmp_path / "started")
    home = scripted(
        board, tmp_path, systemctl=f'{SYSTEMCTL.format(asked)}; test "$1" != start || echo >"{tmp_path}/started"'
    )

    def cut(line: str) -> None:
        board.cut()

    with pytest.raises(UserError, match="the connection was lost"):
        run(HOST, cut, board.ssh_config, home)
    assert (tmp_path / "started").read_text() == "\n"
    assert asked.read_text().split() == ["is-active", "stop", "start"]


def test_a_run_by_hand_that_ends(board: Sshd, tmp_path: Path) -> None:
    home = scripted(board, tmp_path, systemctl="exit 3")
    put(tmp_path / "root/current/venv/bin/edgemaskd", "#!/bin/sh\necho error: no camera >&2\nexit 2\n")
    said: list[str] = []
    assert run(HOST, said.append, board.ssh_config, home) == 2
    assert said == ["error: no camera"]


def test_json_that_scripts_read(far: Far, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line itself, end to end; only where Edgemask lies on a device is the test's own."""
    from edgemask.cli import main

    def edgemask(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgemask", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(str(ended.value.code or 0)), told.out, told.err

    monkeypatch.setattr("edgemask.device.commands.home", lambda: far.home)
    reach = ("--ssh-config", far.sshd.ssh_config)
    release = far.maker.release(1)
    code, out, err = edgemask("flash", release, "--to", HOST, *reach, "--enrol", far.maker.public)
    assert (code, out) == (2, "")
    assert "Nobody can be asked here" in err
    code, out, err = edgemask("flash", release, "--to", HOST, *reach, "--enrol", far.maker.public, "--dry-run")
    assert code == 0
    assert "release  tiny 1.0 (serial 1)" in out
    code, out, err = edgemask("flash", release, "--to", HOST, *reach, "--enrol", far.maker.public, "--yes", "--json")
    assert code == 0
    assert json.loads(out)[0]["installed"]["serial"] == 1
    assert "unpack" in err.splitlines()
    code, out, err = edgemask("status", HOST, *reach)
    assert "tiny 1.0 (serial 1)" in out
    code, out, err = edgemask("status", HOST, *reach, "--json")
    assert json.loads(out)["installed"]["serial"] == 1
    code, out, err = edgemask("flash", far.maker.release(2, "crash"), "--to", HOST, *reach, "--yes")
    assert code == 5
    assert "error: board: tiny 2.0 (serial 2) was taken back" in err
    code, out, err = edgemask("rollback", HOST, *reach)
    assert (code, "no terminal" in err) == (2, True)
    code, out, err = edgemask("rollback", HOST, *reach, "--yes")
    assert (code, "there is no version to go back to" in err) == (2, True)
    code, out, err = edgemask("uninstall", HOST, *reach, "--yes", "--json")
    assert (code, json.loads(out)["removed"][0]) == (0, str(far.layout.root))
    code, out, err = edgemask("status", "--", "-oProxyCommand=x")
    assert (code, "is no device" in err) == (2, True)
