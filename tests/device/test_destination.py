"""How devices are named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemask.device.destination import Destination, known_names
from edgemask.errors import UserError

from .sshd import needs_sshd


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("board", Destination("board")),
        ("pi@board.local", Destination("board.local", "pi")),
        ("ssh://board", Destination("board")),
        ("ssh://pi@board.local:2222", Destination("board.local", "pi", 2222)),
        ("ssh://pi@board/", Destination("board", "pi")),
        ("pi@2001:db8::1", Destination("2001:db8::1", "pi")),
        ("ssh://pi@[2001:db8::1]:22", Destination("2001:db8::1", "pi", 22)),
        ("me@work.example@board", Destination("board", "me@work.example")),
    ],
)
def test_every_form(text: str, expected: Destination) -> None:
    assert Destination.parse(text) == expected
    assert Destination.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=x",
        "pi@-oProxyCommand=x",
        "-l@board",
        "a b",
        "board;reboot",
        "$(x)@board",
        "ssh://",
        "ssh://pi:secret@board",
        "ssh://board:0",
        "ssh://board:70000",
        "ssh://board:x",
        "ssh://board/etc",
        "board\n",
    ],
)
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(UserError, match="is no device") as error:
        Destination.parse(text)
    assert "~/.ssh/config" in str(error.value.hint)


@given(st.text(max_size=30))
def test_no_text_becomes_an_option_or_a_command(text: str) -> None:
    try:
        found = Destination.parse(text)
    except UserError:
        return
    for word in (found.host, found.user or "x"):
        assert not word.startswith("-")
        assert not set(word) & set(" \t\n\0'\"`$;&|<>(){}\\*?!#")


@needs_sshd
def test_ssh_understands_it_alike() -> None:
    """ssh -G prints what it would do."""
    found = Destination.parse("ssh://pi@board.example:2222")
    out = subprocess.run(
        ["ssh", "-F", "/dev/null", "-G", *found.arguments], capture_output=True, text=True, check=True
    ).stdout
    assert {"user pi", "hostname board.example", "port 2222"} <= set(out.splitlines())


def test_names_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh" / "more").mkdir(parents=True)
    (tmp_path / ".ssh" / "config").write_text(
        'Host pi4 "jetson" *.lab !no\n  HostName 10.0.0.1\nInclude more/*\nhost=nano\n'
    )
    (tmp_path / ".ssh" / "more" / "a").write_text("Host deep\nInclude ~/.ssh/config\n")
    assert known_names() == ["deep", "jetson", "nano", "pi4"]
    assert known_names(tmp_path / "nothing") == []
