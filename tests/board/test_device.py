"""A release on an aarch64 board, in order: flashed, watched, attacked, updated, cut off. One board, one story."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import e2e
import numpy as np
import onnxruntime
import pytest

from edgemask_runtime.bundle import Bundle
from edgemask_runtime.release import Release

from .conftest import FIRST
from .device import Device
from .releases import CABIN, flipped
from .watching import ask, asked_all_the_time, decoded, door, frames_on_the_bus, picture

pytestmark = pytest.mark.board
NEXT, LATER = FIRST + 1, FIRST + 2
PAST = "2026-01-01T00:00:00Z"
KILLS = 12
SEED = 20261123


class TestFirst:
    """On a bare board."""

    def test_a_development_key_is_not_taken_unasked(self, device: Device) -> None:
        device.maker.edgemask("keygen", "--development")
        release = device.light("development.release", key="development")
        assert "--allow-dev-key" in device.flash(release, code=2)
        assert device.board.shell("ls /opt/edgemask 2>&1", check=False).startswith("ls: cannot access")

    def test_flash_over_ssh(self, device: Device) -> None:
        device.flash(device.first)
        told = device.serving()
        device.say("status:", json.dumps({key: told[key] for key in ("installed", "service", "health", "floor")}))
        assert told["installed"]["serial"] == FIRST
        assert told["installed"]["engine"]["cabin"].startswith("onnxruntime")


class TestServing:
    """What the daemon does there."""

    def test_the_unit_is_hardened(self, device: Device) -> None:
        told = device.board.ask("systemd-analyze", "security", "edgemaskd.service", "--no-pager")
        device.say(told.strip().splitlines()[-1])
        assert float(told.split("for edgemaskd.service:")[1].split()[0]) <= 2.2
        users = device.board.ask("ps", "-o", "user=", "-C", "edgemaskd").split()
        assert set(users) == {"edgemask"}

    def test_the_cameras_frames_are_answered(self, device: Device) -> None:
        answers = device.answers(5)
        for answer in answers:
            top = answer["top"][0]
            device.say(f"frame {answer['frame']} {answer['name']}: {top['label']} {top['score']:.3f}")
        assert all(answer["name"].startswith("video0#") for answer in answers)
        numbers = [answer["frame"] for answer in answers]
        assert numbers == sorted(set(numbers))

    def test_the_bus_says_the_same(self, device: Device) -> None:
        frames = frames_on_the_bus(device.board, 12)
        signals = decoded(_dbc(device.first, device.maker.folder), frames)
        for (moment, number, data), told in zip(frames, signals, strict=True):
            device.say(f"{moment:.3f} {number:03X}#{data.hex()} {told}")
            assert e2e.p01.e2e_p01_check(bytearray(data), 0x640, data_id_mode=e2e.p01.E2E_P01_DATAID_BOTH)
        assert {number for _, number, _ in frames} == {0x640}
        counters = [told["Counter"] for told in signals]
        assert [(later - earlier) % 15 for earlier, later in pairwise(counters)] == [1] * 11
        assert {str(told["Validity"]) for told in signals} == {"Valid"}
        labels = (CABIN / "../../../examples/driver-id/labels.txt").read_text().split()
        answers = {answer["top"][0]["label"] for answer in device.answers(3)}
        device.say("classes on the bus:", {str(told["TopClass"]) for told in signals}, "in the answers:", answers)
        assert answers <= set(labels)

    def test_a_client_on_the_host_gets_the_answer_of_the_host(self, device: Device) -> None:
        pixels = picture()
        with door(device.board) as url:
            told = {out["name"]: np.array(out["data"]).reshape(out["shape"]) for out in ask(url, pixels)["outputs"]}
        bundle = _bundle(device.first, device.maker.folder)
        session = onnxruntime.InferenceSession(bundle.read(bundle.manifest.model.file))
        wanted = dict(
            zip([out.name for out in session.get_outputs()], session.run(None, {"frame": pixels}), strict=True)
        )
        for name, value in told.items():
            device.say(f"{name}: {value.ravel()[:3]} on the board, {wanted[name].ravel()[:3]} here")
            np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-6)


REFUSED = {
    "expired": ({"expires": PAST}, "expired"),
    "older serial": ({"serial": FIRST - 1, "min_serial": 1}, "serial"),
    "another processor": ({"arch": "x86_64"}, "x86_64"),
    "another board": ({"boards": ("raspberrypi,4-model-b",)}, "raspberrypi,4-model-b"),
    "another Python": ({"python": "3.11"}, "Python"),
    "a newer C library": ({"glibc": "2.99"}, "glibc"),
    "too much memory": ({"memory_mb": 65536}, "memory"),
}


class TestRefused:
    """The device itself says no, whatever the host thinks; what runs is untouched."""

    @pytest.fixture(autouse=True)
    def untouched(self, device: Device) -> Any:
        before = device.board.ask("systemctl", "show", "edgemaskd", "--property=InvocationID")
        yield
        assert device.board.ask("systemctl", "show", "edgemaskd", "--property=InvocationID") == before
        assert device.serving()["installed"]["serial"] == FIRST

    def test_one_by_one(self, device: Device) -> None:
        for case, (changes, word) in REFUSED.items():
            changed = dict(changes)
            python = changed.pop("python", "3.13")
            release = device.light("refused.release", python=python, **changed)
            said = device.install(release, code=2)
            device.say(f"{case}: {said.strip()}")
            assert word in said, case

    def test_keys_and_signatures(self, device: Device) -> None:
        device.maker.keygen("stranger")
        light = device.light("light.release")
        cases = {
            "a stranger's key": device.light("stranger.release", key="stranger"),
            "a development key": device.light("development.release", key="development"),
            "another's signature": device.maker.forged(light, "forged.release"),
            "an altered byte": flipped(light, device.maker.folder / "altered.release", 0.5),
        }
        for case, release in cases.items():
            device.say(f"{case}: {device.install(release, code=2).strip()}")

    def test_flash_says_so_too(self, device: Device) -> None:
        wrong = device.light("wrong.release", arch="x86_64")
        assert "x86_64" in device.flash(wrong, code=2)
        late = device.light("late.release", expires=PAST)
        assert "expire" in device.flash(late, code=2)
        forged = device.maker.forged(device.light("light.release"), "forged.release")
        assert "signature" in device.flash(forged, code=2)


class TestPower:
    """The emulator is killed: nothing on the board hears of it."""

    @pytest.mark.parametrize(("step", "serials"), [("unpack", {FIRST}), ("switch", {FIRST, NEXT})])
    def test_it_comes_back_serving(self, device: Device, step: str, serials: set[int]) -> None:
        device.cut_at(device.update(NEXT), step)
        device.boot()
        told = device.serving()
        device.say(f"cut during {step}: serves serial {told['installed']['serial']};", json.dumps(told["failure"]))
        device.say(device.board.journal("edgemask-recover").strip())
        assert told["installed"]["serial"] in serials
        assert device.answers(2)


class TestUpdates:
    """From one version to the next, and back."""

    def test_an_update_while_it_is_asked(self, device: Device) -> None:
        release = device.update(NEXT, min_serial=NEXT)
        with door(device.board) as url, asked_all_the_time(url) as service:
            device.flash(release)
            device.serving()
        told = device.status()
        device.say(f"{len(service.good)} answers meanwhile; longest gap {service.longest_gap_s:.1f} s")
        assert told["installed"]["serial"] == NEXT
        assert told["floor"] == NEXT
        assert len(service.good) > 10

    def test_a_version_that_crashes_is_taken_back(self, device: Device) -> None:
        unit = Release.open(device.first).read("units/edgemaskd.service")
        lines = [b"ExecStart=/bin/false" if line.startswith(b"ExecStart=") else line for line in unit.split(b"\n")]
        release = device.update(LATER, "crashing.release", files={"units/edgemaskd.service": b"\n".join(lines)})
        told = device.flash(release, code=5)
        assert f"(serial {LATER}) was taken back" in told
        status = device.serving()
        assert status["installed"]["serial"] == NEXT
        assert f"(serial {LATER})" in status["failure"]["release"]


@pytest.mark.slow
def test_every_kill_leaves_a_board_that_serves(device: Device) -> None:
    """An installation runs through once, for its length; then each round is cut at a random share of it."""
    serial = 100
    begun = time.monotonic()
    device.flash(device.update(serial))
    whole_s = time.monotonic() - begun
    draw = random.Random(SEED)
    device.say(f"an installation takes {whole_s:.0f} s; seed {SEED}")
    for kill in range(1, KILLS + 1):
        after_s = draw.uniform(0, whole_s)
        step = device.cut_after(device.update(serial + 1), after_s)
        took_s = device.boot()
        told = device.serving()
        device.say(
            f"kill {kill}: after {after_s:.0f} s, at {step!r}; up in {took_s:.0f} s;", json.dumps(told["failure"])
        )
        device.say(f"    it ran serial {serial}, and runs {told['installed']['serial']}")
        assert told["installed"]["serial"] in (serial, serial + 1)
        assert device.answers(1)
        serial = told["installed"]["serial"]


def _dbc(release: Path, folder: Path) -> Path:
    path = folder / "edgemask.dbc"
    path.write_bytes(Release.open(release).read("edgemask.dbc"))
    return path


def _bundle(release: Path, folder: Path) -> Bundle:
    path = folder / "cabin.edgemask"
    path.write_bytes(Release.open(release).read("models/cabin.edgemask"))
    return Bundle.open(path)
