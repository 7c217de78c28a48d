"""What ssh asks a person, on a real terminal: whether a fingerprint is right, and for a passphrase."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from .sshd import HOST, Sshd, make_key, needs_sshd

pytestmark = needs_sshd
LOOK = (
    "import sys; from pathlib import Path; from edgemask.device.ssh import Ssh;"
    "from edgemask.device.destination import Destination\n"
    f"with Ssh(Destination({HOST!r}), Path(sys.argv[1])) as ssh: print(ssh.run(['echo', 'was let in']).text)"
)


def talk(board: Sshd, *answers: tuple[str, str]) -> tuple[str, int]:
    """Run it on a terminal of its own and answer each question as it comes; all that was seen, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", LOOK, str(board.ssh_config)])
    seen, waiting = "", list(answers)
    while True:
        try:
            seen += os.read(terminal, 4096).decode("utf-8", "replace")
        except OSError:
            break
        if waiting and waiting[0][0] in seen:
            os.write(terminal, waiting.pop(0)[1].encode() + b"\n")
    os.close(terminal)
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fingerprint_that_a_person_accepts(board: Sshd) -> None:
    known = board.folder / "known_hosts"
    known.write_text("")
    seen, code = talk(board, ("fingerprint", "yes"))
    assert "SHA256:" in seen
    assert "was let in" in seen
    assert code == 0
    assert f"[127.0.0.1]:{board.port}" in known.read_text()
    seen, code = talk(board)
    assert "fingerprint" not in seen
    assert "was let in" in seen


def test_a_key_with_a_passphrase(board: Sshd) -> None:
    """Asked for once, though two commands go over the connection."""
    make_key(board.folder / "user", "secret words")
    Path(board.folder / "authorized_keys").write_text((board.folder / "user.pub").read_text())
    seen, code = talk(board, ("Enter passphrase", "secret words"))
    assert seen.count("Enter passphrase") == 1
    assert "secret words" not in seen
    assert "was let in" in seen
    assert code == 0


def test_a_person_who_refuses_the_fingerprint(board: Sshd) -> None:
    (board.folder / "known_hosts").write_text("")
    seen, code = talk(board, ("fingerprint", "no"))
    assert "was let in" not in seen
    assert "its host key is not known on this machine, and was not accepted" in seen
    assert code == 1


@pytest.fixture(autouse=True)
def _no_askpass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_ASKPASS", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
