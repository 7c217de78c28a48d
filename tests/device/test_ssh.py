"""The connection, against a real sshd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from edgemask.device.destination import Destination
from edgemask.device.home import Home, ask_device, change_device
from edgemask.device.ssh import Ssh
from edgemask.errors import UserError

from .sshd import HOST, Sshd, make_key, needs_sshd, programs

pytestmark = needs_sshd
BOARD = Destination(HOST)


def connect(board: Sshd) -> Ssh:
    return Ssh(BOARD, board.ssh_config)


def refusal(board: Sshd, destination: Destination = BOARD) -> UserError:
    with pytest.raises(UserError) as error, Ssh(destination, board.ssh_config):
        pass
    return error.value


def test_commands_arrive_as_they_were_meant(board: Sshd) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "'\"`;", "*", "", "ü"]
    with connect(board) as ssh:
        assert ssh.run(words).text == "a b|$HOME|'\"`;|*||ü|"
        done = ssh.run(["sh", "-c", "cat; echo bad >&2; exit 7"], feed=b"in\n" * 100_000)
    assert (done.code, done.err, done.out) == (7, "bad", b"in\n" * 100_000)


def test_one_connection_for_all_steps(board: Sshd) -> None:
    with connect(board) as ssh:
        for number in range(20):
            assert ssh.run(["echo", str(number)]).text == f"{number}\n"
    assert len(board.connections) == 1


def test_lines_come_as_they_are_printed(board: Sshd) -> None:
    with connect(board) as ssh, ssh.start(["sh", "-c", 'echo one; read x; echo "two $x"']) as channel:
        lines = channel.lines()
        assert next(lines) == "one"
        channel.offer(b"three\n")
        assert list(lines) == ["two three"]
        assert channel.finish().code == 0


def test_a_command_that_was_killed_is_no_lost_connection(board: Sshd) -> None:
    with connect(board) as ssh:
        assert ssh.run(["sh", "-c", "kill -9 $$"]).code not in (0, 1, 2)
        assert ssh.run(["echo", "on"]).text == "on\n"


def test_leaving_ends_what_runs(board: Sshd, tmp_path: Path) -> None:
    """A reader of its input hears the end of it, whether the channel is left or the whole connection."""
    for number in range(2):
        mark = tmp_path / f"ended{number}"
        os.mkfifo(mark)
        command = ["sh", "-c", 'echo on; cat >/dev/null; echo end > "$0"', str(mark)]
        with connect(board) as ssh:
            channel = ssh.start(command)
            assert next(channel.lines()) == "on"
            if number == 0:
                channel.__exit__(None, None, None)
        assert mark.read_text() == "end\n"
        channel.__exit__(None, None, None)


def test_a_connection_lost_in_the_middle(board: Sshd) -> None:
    with connect(board) as ssh, ssh.start(["sh", "-c", "echo on; exec cat"]) as channel:
        assert next(channel.lines()) == "on"
        board.cut()
        with pytest.raises(UserError, match="board: the connection was lost") as error:
            channel.finish()
        assert "edgemask status board" in str(error.value.hint)
        with pytest.raises(UserError, match="the connection was lost"):
            ssh.run(["true"])
    assert len(board.connections) == 1


def test_input_that_nobody_takes(board: Sshd) -> None:
    with connect(board) as ssh, ssh.start(["sh", "-c", "exec 0<&-; echo disk is full >&2; exit 9"]) as channel:
        while channel.offer(b"\0" * 100_000):
            pass
        done = channel.finish()
    assert (done.code, done.err) == (9, "disk is full")


def test_nothing_is_left_of_it(board: Sshd) -> None:
    with connect(board) as ssh:
        folder = Path(ssh._folder.name)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_long_folder_for_temporary_files(board: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with connect(board) as ssh:
        assert ssh.run(["echo", "on"]).text == "on\n"


def session_settings() -> list[str]:
    """What ssh knows since 8.7, and would keep any command from being run."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    major, minor = (int(part) for part in said.removeprefix("OpenSSH_").split("p")[0].split("."))
    return ["SessionType none", "StdinNull yes", "ForkAfterAuthentication yes"] if (major, minor) >= (8, 7) else []


def test_settings_for_people_do_not_matter(board: Sshd) -> None:
    """What people have in ~/.ssh/config for their own sessions: a terminal, a command, forwardings, silence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        board.write_client(
            "RequestTTY force",
            "RemoteCommand tmux attach",
            f"LocalForward {port} localhost:1",
            "ExitOnForwardFailure yes",
            "LogLevel QUIET",
            "ControlMaster auto",
            f"ControlPath {board.folder}/%C",
            "ControlPersist 600",
            *session_settings(),
        )
        with connect(board) as ssh:
            assert ssh.run(["echo", "plain"]).out == b"plain\n"
    board.sessions_ended()


def test_an_older_ssh_is_told_only_what_it_knows(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stops at words of 8.7, as those before it do."""
    real, folder = shutil.which("ssh"), tmp_path / "old"
    folder.mkdir()
    (folder / "ssh").write_text(
        '#!/bin/sh\ntest "$1" != -V || { echo OpenSSH_8.4p1 Debian-5 >&2; exit 0; }\n'
        'case "$*" in *SessionType*) echo Bad configuration option: sessiontype >&2; exit 255;; esac\n'
        f'exec {real} "$@"\n'
    )
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    with connect(board) as ssh:
        assert ssh.run(["echo", "plain"]).out == b"plain\n"


def test_a_shell_that_greets(board: Sshd) -> None:
    board.configure(f'ForceCommand echo welcome; echo again; eval "$SSH_ORIGINAL_COMMAND"; : {HOST}')
    with connect(board) as ssh:
        assert ssh.run(["echo", "x"]).code == 0


def test_a_shell_that_greets_with_a_brace(board: Sshd) -> None:
    """Before and behind what a program of ours prints."""
    board.configure('ForceCommand echo "{ hello }"; eval "$SSH_ORIGINAL_COMMAND"; echo "{bye"')
    steps: list[str] = []
    told = ["echo", '{"step": "look", "done": 0, "of": 1}\n{"installed": 7}\n']
    with connect(board) as ssh:
        assert change_device(ssh, told, lambda step, *_: steps.append(step), root=False) == {"installed": 7}
        assert ask_device(ssh, Home(program=("echo", '{"installed": 7}\n')), "status") == {"installed": 7}
    assert steps == ["look"]


def test_a_user_without_a_shell(board: Sshd) -> None:
    board.configure("ForceCommand echo This account is not available >&2; exit 1")
    error = refusal(board)
    assert "runs no commands: This account is not available" in error.message


def test_a_name_that_nobody_has(board: Sshd) -> None:
    error = refusal(board, Destination("no-such-board.invalid"))
    assert "no-such-board.invalid: no host has this name" in error.message
    assert "edgemask devices" in str(error.hint)


def test_nobody_listens(board: Sshd) -> None:
    board.close()
    error = refusal(board)
    assert "nothing takes ssh connections" in error.message
    assert "systemctl enable --now ssh" in str(error.hint)


def test_somebody_who_never_answers(board: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemask.device.ssh.PATIENCE", ("ConnectTimeout=1",))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        board.write_client(f"Host silent\nHostName 127.0.0.1\nPort {port}")
        error = refusal(board, Destination("silent"))
    assert "silent: it does not answer" in error.message
    assert "ping silent" in str(error.hint)


def test_somebody_who_hangs_up(board: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        board.write_client(f"Host rude\nHostName 127.0.0.1\nPort {rude.getsockname()[1]}")
        hanging_up = threading.Thread(target=lambda: rude.accept()[0].close())
        hanging_up.start()
        error = refusal(board, Destination("rude"))
        hanging_up.join()
    assert "closed the connection before anybody was let in" in error.message


def test_a_key_that_is_not_known_there(board: Sshd) -> None:
    make_key(board.folder / "user")
    error = refusal(board)
    assert "lets this user in neither by key nor by password" in error.message
    assert str(error.hint).startswith("put your key there: ssh-copy-id board")


def test_a_changed_host_key(board: Sshd) -> None:
    make_key(board.folder / "host")
    error = refusal(board)
    assert "its host key is not the one that this machine knows" in error.message
    assert f'ssh-keygen -f "{board.folder}/known_hosts" -R "[127.0.0.1]:{board.port}"' in str(error.hint)


def test_an_unknown_host_key_with_nobody_to_ask(board: Sshd) -> None:
    (board.folder / "known_hosts").write_text("")
    board.write_client()
    (board.folder / "known_hosts").write_text("")
    error = refusal(board)
    assert "its host key is not known on this machine" in error.message
    assert str(error.hint).endswith("ssh board")


def test_a_configuration_that_ssh_does_not_take(board: Sshd) -> None:
    board.write_client("NoSuchOption yes")
    assert "ssh does not take its configuration" in refusal(board).message


def test_a_machine_without_ssh(board: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ssh is missing on this machine"):
        connect(board)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_needs_no_sudo(board: Sshd) -> None:
    with connect(board) as ssh:
        assert ssh.root == []
        assert ssh.run(["id", "-u"], root=True).text == "0\n"


def fake_programs(board: Sshd, sudo: str | None) -> None:
    """A device whose user is not root, with this sudo or none."""
    folder = programs(board.folder / "bin", "sh", "cat", "true", "env")
    scripts = {"id": "case $1 in -u) echo 1000;; *) echo pi;; esac", "sudo": sudo}
    for name, script in scripts.items():
        if script is not None:
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
    board.configure(environment=f"PATH={folder}")


def test_sudo_without_a_password(board: Sshd) -> None:
    fake_programs(board, 'test "$1" = -n && shift; test "$1" = -- && shift; ROOT=yes exec "$@"')
    with connect(board) as ssh:
        assert ssh.root == ["sudo", "-n", "--"]
        assert ssh.run(["sh", "-c", "echo $ROOT"], root=True).text == "yes\n"


def test_sudo_that_asks(board: Sshd) -> None:
    fake_programs(board, "echo 'sudo: a password is required' >&2; exit 1")
    with connect(board) as ssh, pytest.raises(UserError, match="pi may not use sudo there without a password") as error:
        ssh.run(["true"], root=True)
    assert "NOPASSWD" in str(error.value.hint)


def test_no_sudo_at_all(board: Sshd) -> None:
    fake_programs(board, None)
    with connect(board) as ssh, pytest.raises(UserError, match="sudo is missing"):
        ssh.run(["true"], root=True)
