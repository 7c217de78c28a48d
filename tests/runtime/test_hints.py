"""Whatever goes wrong on a device, the error names the next step."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

import edgemask_runtime
from edgemask_runtime.errors import UserError
from edgemask_runtime.files import read_bytes
from edgemask_runtime.install.installing import _unwritten
from edgemask_runtime.install.state import State
from edgemask_runtime.install.warming import _failed
from edgemask_runtime.keys import check_owner_only

HOME = Path(edgemask_runtime.__file__).parent
FILES = [
    *HOME.glob("install/*.py"),
    *HOME.glob("trust/*.py"),
    *(HOME / f"{n}.py" for n in "archive files keys release sealed".split()),
]
REHINTED = {"trust/keyring.py": "_text", "install/state.py": "_text"}
"""What whoever calls gives a hint to."""
ERRORS = {"UserError", "Unhealthy", "Returned", "Busy"}


def without_hint(path: Path) -> list[str]:
    """The errors of a file that are made without one."""
    name = str(path.relative_to(HOME))
    found = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and function.name != REHINTED.get(name):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ERRORS]
            found += [f"{name}:{call.lineno}" for call in made if len(call.args) + len(call.keywords) < 2]
    return found


def test_no_error_of_an_installation_is_without_a_hint() -> None:
    assert [line for path in sorted(FILES) for line in without_hint(path)] == []


def test_what_cannot_be_read_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(9))
    for path in (tmp_path, tmp_path / "none", tmp_path / "large"):
        with pytest.raises(UserError) as caught:
            read_bytes(path, limit_bytes=8)
        assert caught.value.hint
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError) as caught:
            check_owner_only(path, "read it", "`make` makes it")
        assert caught.value.hint == "`make` makes it"


def test_a_warm_up_passes_on_what_the_daemon_said() -> None:
    error = _failed("error: no model: x\nhint: build it")
    assert (error.message, error.hint) == ("the warm-up failed: no model: x", "build it")
    error = _failed("exit code -9")
    assert error.message == "the warm-up failed: exit code -9"
    assert error.hint


def test_a_full_disk_is_told_with_what_is_left() -> None:
    for number, word in ((errno.ENOSPC, "the disk is full"), (errno.EIO, "cannot write")):
        error = OSError(number, "why", "/opt/edgemask/slots/b")
        assert "nothing is installed" in _unwritten(error, State()).message
        said = _unwritten(error, State(current="a"))
        assert word in said.message
        assert "no version to go back to" in said.message
        assert said.hint
