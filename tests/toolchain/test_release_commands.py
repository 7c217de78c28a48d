"""`edgemask build` and `inspect`, as far as they are about releases."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemask import cli
from edgemask_runtime.release import Release

from .releases import Wheelhouse

EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id" / "edgemask.toml"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run `edgemask` in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgemask", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out, found.err

    return command


def test_this_machine_gets_a_bundle_and_no_release_unless_asked(run: Run, wheelhouse: Wheelhouse) -> None:
    code, out, _ = run("build", EXAMPLE, "--target", "host", "--json")
    assert (code, "release" in json.loads(out), wheelhouse.asked) == (0, False, [])
    code, out, err = run("build", EXAMPLE, "--target", "host", "--release", "--json")
    made = json.loads(out)["release"]
    assert (code, made["file"]) == (0, "build/host/driver-id-host.release")
    assert made["signed_by"]["development"] is True
    assert "fetching numpy 1.0 (1 of 5)\n" in err
    code, out, _ = run("build", EXAMPLE, "--target", "host", "--serial", "2")
    assert Release.open("build/host/driver-id-host.release").manifest.serial == 2


def test_a_board_gets_a_release_unless_it_is_not_wanted(run: Run, wheelhouse: Wheelhouse) -> None:
    code, out, _ = run("build", EXAMPLE, "--target", "jetson", "--no-release")
    assert (code, wheelhouse.asked) == (0, [])
    assert [path.suffix for path in sorted(Path("build/jetson").iterdir())] == [".edgemask", ".md"]
    code, out, _ = run("build", EXAMPLE, "--target", "jetson", "--expires", "2090-01-01", "--version", "spring")
    assert code == 0
    assert "release build/jetson/driver-id-jetson.release (serial 1)" in out
    assert "signed  by the development key" in out
    code, shown, _ = run("inspect", "build/jetson/driver-id-jetson.release")
    assert "release spring of driver-id for jetson" in shown
    assert "expires 2090-01-01T00:00:00Z" in shown
    digest = Release.open("build/jetson/driver-id-jetson.release")
    assert json.loads(run("inspect", digest.path, "--json")[1])["payload_digest"] in out


def test_options_that_contradict_each_other(run: Run) -> None:
    code, _, err = run("build", EXAMPLE, "--target", "host", "--no-release", "--serial", "2")
    assert (code, err) == (2, "error: --no-release, and options of a release\nhint: leave one of both out\n")
    code, _, err = run("build", EXAMPLE, "--target", "jetson", "--serial", "0")
    assert (code, Path("build").exists()) == (2, False)


def test_a_cancelled_build_says_so_and_leaves_what_was_there(run: Run, wheelhouse: Wheelhouse) -> None:
    run("build", EXAMPLE, "--target", "jetson")
    before = Path("build/jetson/driver-id-jetson.release").read_bytes()
    wheelhouse.fault = KeyboardInterrupt()
    assert run("build", EXAMPLE, "--target", "jetson", "--serial", "2")[0] == 130
    assert Path("build/jetson/driver-id-jetson.release").read_bytes() == before
