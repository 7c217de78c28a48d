"""Questions to a person, on a real terminal, and what scripts read of their answers and of errors."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgemask.dialogue import ended_in_order
from edgemask_runtime.files import replacing

from .sshd import HOST, Sshd, needs_sshd

EDGEMASK = "from edgemask.cli import main; main()"
DISK = "import sys; from edgemask.errors import run_main; from edgemask.device.card_commands import ask;"
DISK += "sys.exit(run_main(lambda: ask('the disk') == ''))"


@pytest.mark.parametrize(
    ("code", "words", "question"),
    [
        (EDGEMASK, ("rollback", HOST), b"version before?"),
        (EDGEMASK, ("uninstall", HOST, "--json"), b"remove both versions?"),
        (EDGEMASK, ("bench", HOST), b"as long as this takes?"),
        (EDGEMASK, ("keygen", "asked", "--passphrase"), b"passphrase"),
        (DISK, (), b"the disk"),
    ],
)
def test_ctrl_c_at_a_question_cancels(
    code: str, words: tuple[str, ...], question: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code, *words])
    seen, patience_s = b"", 0.5
    while True:
        # Again: a terminal that is made ready for a line forgets what was typed before. Not soon: it may be ending.
        if question in seen and not select.select([terminal], [], [], patience_s)[0]:
            os.write(terminal, b"\x03")
            patience_s = 15
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130, seen
    assert b"Aborted" not in seen


def edgemask(*words: object, answer: bytes = b"") -> tuple[int, str, str]:
    """Run the command line, with a terminal that gives this answer; exit code, what it printed, and the errors."""
    near, far = pty.openpty()
    os.write(near, answer)
    command = [sys.executable, "-c", EDGEMASK, *map(str, words)]
    done = subprocess.run(command, stdin=far, capture_output=True, text=True, timeout=120, check=False)
    os.close(near)
    os.close(far)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("verb", ["rollback", "uninstall", "bench"])
def test_a_declined_question_is_told(verb: str) -> None:
    code, out, _ = edgemask(verb, HOST, "--json", answer=b"n\n")
    assert (code, json.loads(out)) == (0, {"host": HOST, "done": False})
    code, out, _ = edgemask(verb, HOST, answer=b"n\n")
    assert (code, out.strip()) == (0, f"{HOST}: left as it is")


@needs_sshd
def test_errors_that_scripts_read(board: Sshd, tmp_path: Path) -> None:
    board.configure("ForceCommand echo This account is not available >&2; exit 1")
    reach = ("--ssh-config", board.ssh_config, "--json")
    (tmp_path / "x.release").write_text("no release")
    for words in (
        ("status", HOST, *reach),
        ("rollback", HOST, "--yes", *reach),
        ("logs", HOST, *reach),
        ("flash", tmp_path / "x.release", "--to", HOST, *reach),
        ("sign", tmp_path / "x.release", "--json"),
        ("inspect", tmp_path / "x.release", "--json"),
    ):
        code, out, err = edgemask(*words)
        told = json.loads(out)["error"]
        assert (code, told["exit_code"]) == (2, 2)
        assert told.keys() == {"message", "hint", "exit_code"}
        assert err.startswith(f"error: {told['message']}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_card_that_is_half_written_goes_when_its_writer_is_ended(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)

    def write() -> None:
        with ended_in_order(), replacing(tmp_path / "sd.img") as file:
            file.write(b"half")
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
