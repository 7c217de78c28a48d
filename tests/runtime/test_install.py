"""Releases onto a device in a folder: installed, exchanged, returned, gone back to, taken away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

from edgemask_runtime.install.lock import observed
from edgemask_runtime.install.slots import Slot

from .boards import ENTRY_POINTS, HERE, MODEL, RECOVER, RUNTIME, WHEEL, Board, Maker, wheel_of
from .running import watched
from .tiny import MakeBundle

REAL = ENTRY_POINTS.replace("tinyd:main", "edgemask_runtime.daemon:main")
SETTINGS = """schema = 1
[http]
listen = "127.0.0.1:0"
[[models]]
name = "tiny"
bundle = "models/tiny.edgemask"
"""


def test_a_release_is_installed_and_the_next_one_takes_its_place(board: Board) -> None:
    done = board.install(board.maker.release(1), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {line["step"] for line in lines[:-1]} >= {"check", "write", "unpack", "warm-up of tiny", "sync", "switch"}
    assert lines[-1]["installed"] | {"since": 0, "digest": 0} == {
        "slot": "a",
        "name": "tiny",
        "version": "1.0",
        "serial": 1,
        "target": "host",
        "encrypted": False,
        "digest": 0,
        "since": 0,
        "engine": {"tiny": "none 1.0, cpu"},
    }
    board.manager.becomes("active", "version 1")
    assert board.manager.users == ["u edgemask -\n"]
    board.installed(2)
    told = board.status()
    assert (told["installed"]["serial"], told["previous"]["serial"]) == (2, 1)
    assert told["service"] == {"state": "active", "detail": "running", "restarts": 0, "status": "version 2"}
    assert told["trouble"] == []
    assert told["keys"]["enrolled"][0]["id"] == board.maker.key.id
    assert board.check() == 2
    assert not os.access(board.layout.current / "settings.toml", os.X_OK)


def test_a_daemon_that_does_not_start_is_returned(board: Board) -> None:
    board.installed(1)
    for serial, behaviour, cause in ((2, "crash", "error: no camera"), (3, "leave", "error: the camera is gone")):
        # It leaves before that, whenever it does.
        board.steady_s = 60
        done = board.install(board.maker.release(serial, behaviour))
        assert done.returncode == 5, done.stdout + done.stderr
        assert f"tiny {serial}.0 (serial {serial}) was taken back: the daemon ended at its start" in done.stderr
        assert cause in done.stderr
        assert "hint: tiny 1.0 (serial 1) runs again" in done.stderr
        board.manager.becomes("active", "version 1")
        assert board.check() == 1
        assert cause in board.status()["failure"]["cause"]
    board.steady_s = 0
    board.installed(4)
    assert board.status()["failure"] is None


def test_a_daemon_that_is_not_well_is_returned(board: Board) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        board.installed(1, port=port)
        assert board.status()["health"] == "ready"
        done = board.install(board.maker.release(2, "sick", port=port))
        assert done.returncode == 5, done.stdout + done.stderr
        assert f"http://127.0.0.1:{port}/v2/health/ready: it answers 503" in done.stderr
        assert board.check() == 1
        board.manager.becomes("active", "version 1")
        assert board.status()["health"] == "ready"


def test_status_asks_at_the_door_that_the_settings_name_now(board: Board) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed, socket.create_server(("127.0.0.1", 0)) as other:
        before, now = (server.getsockname()[1] for server in (closed, other))
        closed.close()
        board.layout.settings.parent.mkdir(parents=True)
        board.layout.settings.write_text(f'schema = 1\n[http]\nlisten = "0.0.0.0:{before}"\n')
        assert board.install(board.maker.release(1, port=before)).returncode == 0
        assert board.status()["health"] == "ready"
        board.layout.settings.write_text(f'schema = 1\n[http]\nlisten = "0.0.0.0:{now}"\n')
        board.manager.stop()
        asked = threading.Thread(target=_answer, args=(other,))
        asked.start()
        assert board.status()["health"] == "ready"
        asked.join()
        board.layout.settings.write_text("schema = 1\n")
        assert board.status()["health"] == "no HTTP server to ask"
        board.layout.settings.write_text("schema = ")
        assert board.status()["health"].startswith("not ready: no answer")


def _answer(server: socket.socket) -> None:
    with server.accept()[0] as one:
        one.recv(4096)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_what_fails_its_warm_up_never_runs(board: Board) -> None:
    board.installed(1)
    before = board.manager.state()
    done = board.install(board.maker.release(2, "cold"))
    assert done.returncode == 2
    assert "the warm-up failed: tiny: on this machine the model answers otherwise" in done.stderr
    assert board.manager.state() == before
    assert board.check() == 1
    assert "warm-up" in board.status()["failure"]["cause"]


def test_a_release_that_cannot_be_run_or_undone_is_refused(board: Board) -> None:
    board.installed(1)
    lame = {"edgemask_runtime/__init__.py": "", "edgemask_runtime/install/cli.py": "import a_module_that_is_missing"}
    for serial, files, cause in (
        (2, {"other.py": "", "tiny-1.dist-info/entry_points.txt": _without("edgemask-device")}, "no `edgemask-de"),
        (3, lame | {"tiny-1.dist-info/entry_points.txt": ENTRY_POINTS}, "No module named 'a_module_that_is_missing'"),
        (4, {"here.pth": str(RUNTIME), "tiny-1.dist-info/entry_points.txt": _without("edgemaskd")}, "no `edgemaskd`"),
    ):
        done = board.install(board.maker.write(serial, {WHEEL: wheel_of(files)}))
        assert done.returncode == 2
        assert cause in done.stderr
        assert board.check() == 1
    release = board.maker.write(5, {}, without=RECOVER)
    assert "the release brings no edgemask-recover.service" in board.refuses("install", release)


def _without(program: str) -> str:
    return "\n".join(line for line in ENTRY_POINTS.splitlines() if not line.startswith(f"{program} "))


def test_a_first_install_that_fails_leaves_nothing_that_runs(board: Board) -> None:
    done = board.install(board.maker.release(1, "crash"))
    assert done.returncode == 5
    assert "nothing runs" in done.stderr
    assert board.check() == 0
    assert board.manager.becomes("inactive")
    board.installed(2)
    assert board.check() == 2


def test_the_same_again_only_sees_that_it_runs(board: Board) -> None:
    board.installed(1)
    run, tree = board.manager.state().run, board.tree()
    board.installed(1)
    assert (board.manager.state().run, board.tree()) == (run, tree)
    board.manager.stop()
    board.installed(1)
    assert board.check() == 1
    (board.layout.slot("a") / "sbom.cdx.json").write_text("rotten")
    board.installed(1)
    assert board.layout.running() == "b"


def test_rollback_goes_to_the_other_slot_and_back(board: Board) -> None:
    board.installed(1)
    assert "no version to go back to" in board.refuses("rollback")
    board.installed(2)
    for serial in (1, 2, 1):
        done = board.run("rollback", "--json")
        assert done.returncode == 0, done.stderr
        board.manager.becomes("active", f"version {serial}")
        assert board.check() == serial
    board.installed(3)
    assert board.status()["previous"]["serial"] == 1


def test_the_floor_rises_after_the_gate_alone(board: Board) -> None:
    board.installed(1)
    assert board.install(board.maker.release(3, "crash", min_serial=3)).returncode == 5
    assert board.status()["floor"] == 1
    board.installed(2)
    board.installed(3, min_serial=3)
    assert board.status()["floor"] == 3
    assert "below the floor, 3" in board.refuses("rollback")
    assert "this device takes 3 or above" in board.refuses("install", board.maker.release(2))
    board.installed(4)
    assert board.run("rollback").returncode == 0
    assert board.check() == 3


def test_a_release_changes_keys_when_it_runs(board: Board, make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    heir = Maker(tmp_path / "next", make_bundle())
    board.installed(1)
    assert "not enrolled here" in board.refuses("install", heir.release(2))
    changes = {"add": (heir.key.text,), "revoke": (board.maker.key.id,)}
    keys = type(Slot(board.layout.slot("a")).manifest().keys)(**changes)
    assert board.install(board.maker.release(2, "crash", keys=keys)).returncode == 5
    assert "not enrolled here" in board.refuses("install", heir.release(2))
    board.installed(3, keys=keys)
    assert "revoked" in board.refuses("install", board.maker.release(4))
    assert board.run("install", heir.release(5)).returncode == 0
    assert [key["id"] for key in board.status()["keys"]["enrolled"]] == [heir.key.id]


def test_a_file_of_keys_that_cannot_be_read(board: Board, make_bundle: MakeBundle, tmp_path: Path) -> None:
    """It holds up neither what runs nor the next start, and there is a way out."""
    (tmp_path / "next").mkdir()
    heir = Maker(tmp_path / "next", make_bundle())
    board.installed(1)
    assert "--reset-keys is for one that cannot" in board.refuses("install", board.maker.release(2), "--reset-keys")
    state = json.loads(board.layout.state.read_text())
    # As the power leaves it between the gate and the release's changes of keys.
    state["pending"] = {"slot": "a", "back": None, "fresh": True, "passed": True}
    board.layout.state.write_text(json.dumps(state))
    board.layout.keys.write_text('{"schema": 1, "enrolled": [')
    board.boot()
    told = board.run("recover").stdout
    assert "its changes of keys wait" in told
    assert "--reset-keys" in told
    assert "not valid JSON" in board.run("status").stdout
    assert "--reset-keys" in board.refuses("install", heir.release(2), "--enrol", heir.public)
    assert "not enrolled here" in board.refuses("install", board.maker.release(2), "--reset-keys")
    done = board.run("install", heir.release(2), "--enrol", heir.public, "--reset-keys")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [key["id"] for key in board.status()["keys"]["enrolled"]] == [heir.key.id]
    assert board.layout.keys.with_suffix(".broken").exists()
    assert board.check() == 2


def test_what_is_refused_changes_nothing(board: Board) -> None:
    board.installed(1)
    good = board.maker.release(2)
    assert "SHA-256" in board.refuses("install", good, "--sha256", "0" * 64)
    (board.folder / "flipped.release").write_bytes(good.read_bytes().replace(b"VERSION", b"version", 1))
    assert "not a sound release" in board.refuses("install", board.folder / "flipped.release")
    assert "is for" in board.refuses("install", board.maker.release(3, arch="aarch64"))
    assert "is for Python" in board.refuses("install", board.maker.release(4, environments=_of_another_python(board)))
    assert "no such release" in board.refuses("install", board.folder / "none.release")
    assert "expired" in board.refuses("install", board.maker.release(5, expires="2026-10-01T00:00:00Z"))
    assert board.check() == 1


def _of_another_python(board: Board) -> dict[str, object]:
    environments = Slot(board.layout.slot("a")).manifest().environments
    return {"3.99": next(iter(environments.values()))}


def test_one_install_at_a_time(board: Board) -> None:
    board.installed(1)
    slow = board.maker.release(2, "slow")
    command = [sys.executable, str(HERE / "installer.py"), str(board.folder), "0", "install", str(slow)]
    with watched(command, stdout=subprocess.PIPE) as first:
        assert first.process.stdout
        while "building" not in first.process.stdout.readline():
            assert first.process.poll() is None
        done = board.run("install", board.maker.release(3))
        assert done.returncode == 2
        assert f"another change is under way: `install` of process {first.process.pid}, since 20" in done.stderr
        assert board.run("recover", "--boot").returncode == 0
        told = board.status()
        assert (told["installed"]["serial"], told["trouble"]) == (1, [])
        assert (told["busy"]["verb"], told["busy"]["pid"]) == ("install", first.process.pid)
        assert f"under way: `install` of process {first.process.pid}" in board.run("status").stdout
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(60) == 130
    assert board.check() == 1
    board.installed(3)


def test_an_install_in_its_gate_is_no_trouble(board: Board) -> None:
    board.installed(1)
    with board.in_the_gate(board.maker.release(2, "silent")) as installer:
        told = board.status()
        assert (told["pending"], told["trouble"], told["busy"]["verb"]) == ("b", [], "install")
        installer.process.kill()
        installer.process.wait(60)
    told = board.status()
    assert told["busy"] is None
    assert "was cut off" in told["trouble"][0]
    board.boot()
    assert board.check() == 1


def test_who_looks_keeps_nobody_from_a_change(board: Board) -> None:
    board.installed(1)
    with observed(board.layout) as busy, observed(board.layout) as second:
        assert (busy, second) == (None, None)
        waiting = subprocess.Popen(
            [sys.executable, str(HERE / "installer.py"), str(board.folder), "0", "recover"], stdout=subprocess.PIPE
        )
        assert board.status()["busy"] is None
    assert b"nothing to recover" in waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


def test_the_owners_settings_stay(board: Board) -> None:
    board.layout.settings.parent.mkdir(parents=True)
    board.layout.settings.write_text("mine")
    board.installed(1)
    assert board.status()["settings"] == "the owner's"
    assert board.layout.settings.read_text() == "mine"
    assert board.run("uninstall").returncode == 0
    assert board.layout.settings.read_text() == "mine"


def test_what_the_network_hears_keeps_no_version_from_running(board: Board) -> None:
    board.installed(1)
    announced = board.avahi / "edgemask.service"
    assert "serial=1" in announced.read_text()
    elsewhere = [str(board.layout.system / name) for name in ("etc/s", "etc/e", "usr", "var")]
    elsewhere.append(str(board.layout.root))
    done = board.install(board.maker.release(2), writable=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Avahi is not told: " in done.stdout
    assert "Read-only file system" in done.stdout
    assert board.check() == 2
    board.boot()
    assert "serial=2" in announced.read_text()
    assert board.run("uninstall", writable=elsewhere).returncode == 0
    assert "serial=2" in announced.read_text()
    assert board.run("uninstall").returncode == 0
    assert not announced.exists()


def test_a_service_manager_that_hangs_in_the_gate(board: Board) -> None:
    board.installed(1)
    with board.in_the_gate(board.maker.release(2, "silent")) as installer:
        (board.folder / "manager.hangs").touch()
        installer.said("taken back: `systemctl show` does not end")
        assert installer.process.wait(60) == 5
    (board.folder / "manager.hangs").unlink()
    assert board.check() == 1
    board.manager.becomes("active", "version 1")


def test_uninstall_leaves_nothing(board: Board) -> None:
    board.installed(1)
    (board.layout.settings.parent / "door.key").write_text("the owner's")
    done = board.run("uninstall")
    assert done.returncode == 0, done.stderr
    assert board.manager.state().active == "inactive"
    assert not board.layout.root.exists()
    left = [path for path in board.layout.system.rglob("*") if not path.is_dir()]
    assert left == [board.layout.settings.parent / "door.key"]
    board.installed(2)
    assert board.run("uninstall", "--purge").returncode == 0
    assert [path for path in board.layout.system.rglob("*") if not path.is_dir()] == []


def test_what_a_cut_left_beside_links_is_removed(board: Board) -> None:
    layout, avahi = board.layout, board.layout.system / "etc/avahi/services"
    board.installed(1)
    parts = [place.with_name(f".{place.name}.part") for place in (layout.settings, layout.program, layout.users)]
    parts += [layout.units / ".edgemaskd.service.part"]
    for verb in ("recover", "uninstall"):
        for part in parts:
            part.symlink_to(layout.current / "anything")
        (avahi / ".edgemask.service.77.part").write_text("half")
        assert board.run(verb).returncode == 0
        assert not list(layout.system.rglob(".*part"))
    assert not layout.settings.parent.exists()


def test_what_the_owner_disabled_stays_so_until_the_next_install(board: Board) -> None:
    """`systemctl disable` removes the unit's links, the one that makes systemd know it among them."""
    board.installed(1)
    unit = board.layout.units / "edgemaskd.service"
    wanted = board.layout.units / "multi-user.target.wants/edgemaskd.service"
    for link in (unit, wanted):
        assert link.is_symlink()
        link.unlink()
    board.boot()
    assert (unit.exists(), wanted.is_symlink()) == (True, False)
    board.manager.stop()
    board.installed(1)
    assert wanted.is_symlink()
    wanted.unlink()
    # So does `systemctl enable` link it, past `current`.
    wanted.symlink_to(board.layout.slot("a") / "units/edgemaskd.service")
    board.installed(2)
    assert wanted.readlink() == board.layout.current / "units/edgemaskd.service"
    assert board.run("uninstall").returncode == 0
    assert not wanted.is_symlink()


def test_damage_by_hand_is_told_and_mended(board: Board) -> None:
    board.installed(1)
    board.installed(2)
    board.layout.state.write_text('{"schema": 1, "floor": -3}')
    told = board.run("status")
    assert told.returncode == 2
    assert "state.json: $.floor: value -3; allowed" in told.stderr
    assert "edgemask-device recover" in told.stderr
    assert board.run("recover").returncode == 0
    assert board.check() == 2
    board.layout.current.unlink()
    board.layout.current.symlink_to("slots/c")
    assert "points to slots/c, which is not there" in board.status()["trouble"][0]
    assert "current: now tiny 2.0" in board.run("recover").stdout
    Slot(board.layout.slot("b")).clear()
    assert any("missing" in trouble for trouble in board.status()["trouble"])
    assert board.run("recover").returncode == 0
    assert board.check() == 1
    board.layout.state.unlink()
    assert board.run("recover").returncode == 0
    assert board.check() == 1
    board.installed(3)


def test_what_rules_old_releases_out_outlives_a_lost_state(board: Board) -> None:
    board.installed(9, min_serial=9, date="2026-11-22T00:00:00Z")
    board.installed(11, date="2026-11-20T00:00:00Z")
    board.installed(12, date="2026-11-20T00:00:00Z")
    before = json.loads(board.layout.state.read_text())
    for lost in ([board.layout.state], [board.layout.state, board.layout.current]):
        for path in lost:
            path.unlink()
        board.boot()
        state = json.loads(board.layout.state.read_text())
        assert {name: state[name] for name in ("floor", "newest_time")} == {
            name: before[name] for name in ("floor", "newest_time")
        }
    assert board.status()["installed"] is None
    assert "this device takes 9 or above" in board.refuses("install", board.maker.release(8))


def test_with_nothing_remembered_what_runs_is_the_oldest_that_may(board: Board) -> None:
    board.installed(4, min_serial=2, date="2026-11-22T00:00:00Z")
    board.installed(5, min_serial=3, date="2026-11-20T00:00:00Z")
    newest = json.loads(board.layout.state.read_text())["newest_time"]
    assert newest > 0
    board.layout.state.unlink()
    board.layout.floor.write_text("{")
    board.boot()
    state = json.loads(board.layout.state.read_text())
    assert (board.check(), state["floor"], state["newest_time"]) == (5, 5, newest)
    assert "below the floor" in board.refuses("rollback")


def test_the_real_daemon_is_installed_and_warmed_up(board: Board) -> None:
    """Its modules are those of this environment, which a path file in the wheel leads to."""
    places = [sysconfig.get_paths()["purelib"], str(Path(__file__).parents[2] / "runtime")]
    wheel = wheel_of({"here.pth": "\n".join(places), "real-1.dist-info/entry_points.txt": REAL})
    done = board.install(board.maker.write(1, {WHEEL: wheel, "settings.toml": SETTINGS.encode()}), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert board.manager.becomes("active").status == "serving"
    installed = board.status()["installed"]
    assert installed["engine"]["tiny"].startswith("onnxruntime 1")
    broken = SETTINGS.replace(MODEL, "models/other.edgemask").encode()
    done = board.install(board.maker.write(2, {WHEEL: wheel, "settings.toml": broken}))
    assert done.returncode == 2
    assert "$.models[0].bundle" in done.stderr
    assert board.manager.becomes("active").status == "serving"


def test_engines_of_what_is_gone_are_removed(board: Board) -> None:
    """They are named by what was in the warm-up; here that is the version."""
    engines, elsewhere = board.layout.engines, board.folder / "elsewhere"
    board.installed(1)
    for name in ("1", "2", "3", "of-another"):
        (engines / name).mkdir(parents=True)
        (engines / name / "TensorrtExecutionProvider.engine").write_bytes(b"weights")
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (engines / "link").symlink_to(elsewhere)
    assert board.install(board.maker.release(2, "crash")).returncode == 5
    assert len(list(engines.iterdir())) == 5
    board.installed(2)
    assert sorted(path.name for path in engines.iterdir()) == ["1", "2"]
    shutil.rmtree(engines)
    engines.symlink_to(elsewhere)
    board.installed(3)
    assert (elsewhere / "kept").read_text() == "kept"


def test_without_an_installation_every_verb_says_so(board: Board) -> None:
    assert board.status()["installed"] is None
    assert "nothing to recover" in board.run("recover").stdout
    assert "no version to go back to" in board.run("rollback").stderr
    assert "no key is enrolled" in board.run("keys").stdout
    assert board.run("uninstall").returncode == 0


def test_what_a_newer_version_wrote_down_can_be_read(board: Board) -> None:
    board.installed(1)
    later = {"added": {"later": True}}
    complete = board.layout.slot("a") / "complete.json"
    state, completed = json.loads(board.layout.state.read_text()), json.loads(complete.read_text())
    failure = {"release": "tiny 2", "cause": "no camera", "at": "2026-11-20T00:00:00Z"} | later
    board.layout.state.write_text(json.dumps(state | later | {"failure": failure}))
    warm = completed["warm"] | later | {"models": {"tiny": completed["warm"]["models"]["tiny"] | later}}
    complete.write_text(json.dumps(completed | later | {"warm": warm}))
    assert board.status()["failure"]["cause"] == "no camera"
    assert board.status()["installed"]["serial"] == 1
    board.boot()
    assert board.check() == 1
