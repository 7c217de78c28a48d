"""Lines of JSON in a file and on a Unix socket."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgemask_runtime.answers import Reading
from edgemask_runtime.errors import UserError
from edgemask_runtime.sinks import sink_settings

from .answering import DIGEST, answer, opened


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sink = opened("jsonl", path=path)
    sink.write(answer(7), None)
    (line,) = lines_of(path)
    assert (line["pipeline"], line["frame"], line["digest"]) == ("door", 7, DIGEST)
    assert line["top"] == [{"index": 1, "label": "bob", "score": 0.75}]
    sink.invalidate("stalled")
    assert lines_of(path)[1].items() >= {"pipeline": "door", "invalid": "stalled"}.items()
    sink.close()


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl-20261123"
    sink = opened("jsonl", path=path)
    sink.write(answer(1), None)
    path.rename(moved)
    sink.write(answer(2), None)
    path.unlink()
    sink.write(answer(3), None)
    sink.close()
    assert [line["frame"] for line in lines_of(moved)] == [1]
    assert [line["frame"] for line in lines_of(path)] == [3]


def test_a_file_that_is_cut_is_written_on_from_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sink = opened("jsonl", path=path)
    sink.write(answer(1), None)
    os.truncate(path, 0)
    sink.write(answer(2), None)
    sink.close()
    assert [line["frame"] for line in lines_of(path)] == [2]


def test_a_file_stays_below_its_bound_and_no_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sink = opened("jsonl", path=path, max_mb=0.002)
    for frame in range(50):
        sink.write(answer(frame), None)
    sink.close()
    before, now = lines_of(tmp_path / "answers.jsonl.1"), lines_of(path)
    assert [line["frame"] for line in (*before, *now)] == list(range(50 - len(before) - len(now), 50))
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    sink = opened("jsonl", path=path)
    sink.write(answer(1), None)
    with limited_file_size(path.stat().st_size + 10), pytest.raises(UserError, match="cannot write"):
        sink.write(answer(2), None)
    sink.write(answer(3), None)
    sink.close()
    assert [line["frame"] for line in lines_of(path)] == [1, 3]


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """No file may grow beyond `size`: a write that would is cut short, as on a disk that is full."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def connected(path: Path) -> socket.socket:
    reader = socket.socket(socket.AF_UNIX)
    reader.settimeout(60)
    reader.connect(str(path))
    return reader


def test_every_reader_of_the_socket_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.sock"
    sink = opened("socket", path=path, mode="0600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with connected(path) as early, connected(path) as other:
        sink.write(answer(1), None)
        with connected(path) as late:
            sink.write(answer(2), None)
            sink.invalidate("stalled")
            sink.close()
            heard = [[json.loads(line) for line in reader.makefile()] for reader in (early, other, late)]
    assert [line.get("frame") for line in heard[0]] == [1, 2, None]
    assert heard[0] == heard[1]
    assert heard[2] == heard[0][1:]
    assert heard[0][2]["invalid"] == "stalled"
    assert not path.exists()


def test_a_reader_that_does_not_read_is_dropped_and_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "answers.sock"
    sink = opened("socket", path=path, buffer_kb=8)
    with connected(path) as slow, connected(path) as quick:
        sent = 0
        told = quick.makefile()
        while sent < 500:
            sent += 1
            sink.write(answer(sent), None)
            assert json.loads(told.readline())["frame"] == sent
        heard = b"".join(iter(lambda: slow.recv(1 << 16), b""))
        whole = heard.rpartition(b"\n")[0].splitlines()
        assert [json.loads(line)["frame"] for line in whole] == list(range(1, len(whole) + 1))
        assert 0 < len(whole) < 400
    sink.write(answer(sent + 1), None)
    sink.write(answer(sent + 2), None)
    sink.close()


def test_no_more_readers_than_stated(tmp_path: Path) -> None:
    path = tmp_path / "answers.sock"
    sink = opened("socket", path=path, max_readers=1)
    with connected(path) as first, connected(path) as second:
        sink.write(answer(1), None)
        assert json.loads(first.makefile().readline())["frame"] == 1
        assert second.recv(100) == b""
    sink.close()


def test_a_socket_that_a_crash_left_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "answers.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    sink = opened("socket", path=path)
    with pytest.raises(UserError, match="another program listens here"):
        opened("socket", path=path)
    sink.close()
    path.write_text("mine")
    with pytest.raises(UserError, match="no socket"):
        opened("socket", path=path)
    assert path.read_text() == "mine"


def test_paths_that_cannot_be_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="longer than a socket's path may be"):
        opened("socket", path=tmp_path / ("x" * 120))
    with pytest.raises(UserError, match="cannot listen: No such file"):
        opened("socket", path=Path("/nowhere/answers.sock"))
    with pytest.raises(UserError, match="cannot write: No such file"):
        opened("jsonl", path=Path("/nowhere/answers.jsonl"))


def test_without_a_path_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    sink = opened("jsonl")
    sink.write(answer(4, Reading((), True, {})), None)
    sink.close()
    assert json.loads(capsys.readouterr().out)["suspicious"] is True
    assert not sys.stdout.closed


@pytest.mark.parametrize(("kind", "package"), [("mqtt", "paho"), ("can", "cantools")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tuple(sys.modules):
        if name.startswith((f"edgemask_runtime.sinks.{kind}", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"the sink {kind} needs {package}") as refusal:
        sink_settings(kind)
    assert refusal.value.hint == f"pip install 'edgemask-runtime[{kind}]'"
