from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from edgemask_runtime.errors import UserError, closest, one_line, run_main
from edgemask_runtime.files import read_bytes, write_atomic


def raising(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("it is broken", "mend it"), 2, "error: it is broken\nhint: mend it\n"),
        (UserError("it is broken"), 2, "error: it is broken\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda: raising(error)) == code
    assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda: raising(RuntimeError("a bug"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_commands_own_code_is_kept() -> None:
    assert run_main(lambda: None) == 0
    assert run_main(lambda: 3) == 3


def test_the_closest_word() -> None:
    assert closest("jpg", ["jpeg", "median"]) == "jpeg"
    assert closest("zzz", ["jpeg", "median"]) is None


def test_a_reason_is_one_short_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 303


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old and longer")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "absent" / "x"):
        with pytest.raises(UserError, match="cannot write"):
            write_atomic(target, b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", limit_bytes=5) == b"12345"
    with pytest.raises(UserError, match="larger than"):
        read_bytes(tmp_path / "x", limit_bytes=4)
    with pytest.raises(UserError, match="cannot read: No such file"):
        read_bytes(tmp_path / "absent", limit_bytes=4)


def test_a_folder_that_is_a_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_atomic(tmp_path / "file" / "out", b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
