"""What a device runs, timed there: this machine behind an sshd, with the real daemon's own program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from runtime.boards import Maker
from runtime.releases import MODEL
from runtime.tiny import MakeBundle

from edgemask.benching import bench_device
from edgemask.device.home import Home
from edgemask.errors import UserError
from edgemask_runtime.release import Release

from .sshd import HOST, Sshd, needs_sshd
from .test_verbs import put, scripted

pytestmark = needs_sshd
DAEMON = f'#!/bin/sh\nexec "{sys.executable}" -m edgemask_runtime.daemon "$@"\n'


def installed(board: Sshd, tmp_path: Path, bundle: Path, daemon: str = DAEMON) -> Home:
    asked = tmp_path / "asked"
    home = scripted(board, tmp_path, systemctl=f'echo "$1" >>"{asked}"')
    release = Release.open(Maker(tmp_path, bundle).release(1))
    current = tmp_path / "root" / "current"
    put(current / "venv/bin/edgemaskd", daemon)
    (current / "release.json").write_bytes(release.signed)
    put(current / MODEL, "")
    (current / MODEL).write_bytes(bundle.read_bytes())
    return home


@pytest.mark.parametrize(("engine", "how"), [("onnxruntime", "profiler"), ("litert", "none")])
def test_a_device_is_timed_and_its_service_goes_on(
    board: Sshd, tmp_path: Path, make_bundle: MakeBundle, engine: str, how: str
) -> None:
    home = installed(board, tmp_path, make_bundle(engine))
    (told,) = bench_device(HOST, 10, config=board.ssh_config, home=home)
    assert told["engine"].startswith(engine)
    assert told["runs"] == 10
    assert told["latency"]["median_ms"] > 0
    assert told["how"].startswith(how)
    assert bool(told["steps"]) == (how == "profiler")
    assert told["machine"]["python"].startswith("3.")
    assert (tmp_path / "asked").read_text().split() == ["is-active", "stop", "start"]


def test_a_device_whose_daemon_cannot(board: Sshd, tmp_path: Path, make_bundle: MakeBundle) -> None:
    home = installed(board, tmp_path, make_bundle(), "#!/bin/sh\necho 'error: no engine' >&2\nexit 2\n")
    with pytest.raises(UserError, match=r"^board: no engine$"):
        bench_device(HOST, 10, config=board.ssh_config, home=home)
    assert (tmp_path / "asked").read_text().split() == ["is-active", "stop", "start"]


def test_the_command_line(
    board: Sshd,
    tmp_path: Path,
    make_bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgemask.cli import main

    home = installed(board, tmp_path, make_bundle())
    monkeypatch.setattr("edgemask.device.commands.home", lambda: home)
    words = ["bench", HOST, "--ssh-config", str(board.ssh_config), "--runs", "10"]
    for more, code in (([], 2), (["--yes", "--json"], 0)):
        monkeypatch.setattr("sys.argv", ["edgemask", *words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        told = capsys.readouterr()
    assert json.loads(told.out)[0]["model"] == "tiny"
    assert told.err.splitlines() == ["connect", "time tiny, 10 runs"]
