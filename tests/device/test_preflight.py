"""What a device is asked before anything is sent."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runtime.releases import files_around, manifest_around
from runtime.tiny import MakeBundle

from edgemask.device.facts import Disk, Facts
from edgemask.device.preflight import MB, SPARE_BYTES, Check, Sizes, check, require
from edgemask.device.there import source
from edgemask.errors import UserError
from edgemask_runtime.release import Environment, ReleaseManifest

NOW_S = 1_800_000_000.0
PI = Facts(
    python="3.11",
    others={},
    venv=True,
    bits=64,
    machine="aarch64",
    glibc="2.36",
    boards=("raspberrypi,4-model-b", "brcm,bcm2711"),
    model="Raspberry Pi 4 Model B Rev 1.4",
    system="Linux",
    memory_mb=1846,
    root=Disk(1, 900 * MB),
    cache=Disk(1, 900 * MB),
    time=NOW_S,
    systemd=True,
    writable=False,
    busy=None,
    installed=None,
    runs=False,
    left=False,
    clearable=0,
    packages={"tensorrt": True},
)
SIZES = Sizes(50 * MB, 50 * MB, 300 * MB)


@pytest.fixture(scope="module")
def manifest(make_bundle: MakeBundle) -> ReleaseManifest:
    bundle = make_bundle()
    environments = {"3.11": Environment((), ()), "3.13": Environment((), ("tensorrt",))}
    return manifest_around(bundle, files_around(bundle), environments=environments, arch="aarch64")


def failing(facts: Facts, manifest: ReleaseManifest, sizes: Sizes = SIZES) -> dict[str, Check]:
    return {one.what: one for one in check(facts, manifest, sizes, NOW_S) if not one.passed}


def test_a_device_that_fits(manifest: ReleaseManifest) -> None:
    assert failing(PI, manifest) == {}
    require("pi", check(PI, manifest, SIZES, NOW_S))


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"machine": "x86_64"}, "processor", "edgemask targets"),
        ({"bits": 32}, "processor", "write the 64-bit image"),
        ({"python": "3.9"}, "Python", "Python 3.11 or 3.13"),
        ({"venv": False}, "Python's venv", "python3-venv"),
        ({"glibc": "2.9"}, "glibc", "newer version"),
        ({"glibc": None}, "glibc", "newer version"),
        ({"memory_mb": 63}, "memory", "smaller model"),
        ({"root": Disk(1, 349 * MB), "cache": Disk(1, 349 * MB)}, "disk", "df -h"),
        ({"cache": Disk(2, 49 * MB)}, "disk of the home folder", "df -h"),
        ({"busy": '{"verb": "install"}'}, "other installers", "edgemask status"),
        ({"python": "3.13", "packages": {}}, "package tensorrt", "ships tensorrt"),
    ],
)
def test_what_is_in_the_way(manifest: ReleaseManifest, changes: dict[str, Any], what: str, hint: str) -> None:
    found = failing(dataclasses.replace(PI, **changes), manifest)
    assert list(found) == [what]
    assert hint in found[what].hint
    with pytest.raises(UserError, match=f"^pi: {what}: "):
        require("pi", list(found.values()))


def test_a_disk_that_holds_both_needs_room_for_both(manifest: ReleaseManifest) -> None:
    exact = Disk(1, 350 * MB + SPARE_BYTES)
    assert not failing(dataclasses.replace(PI, root=exact, cache=exact), manifest)
    less = Disk(1, exact.free - 1)
    assert not failing(dataclasses.replace(PI, root=less, cache=less, clearable=1), manifest)
    assert failing(dataclasses.replace(PI, root=less, cache=less), manifest)
    apart = dataclasses.replace(PI, root=Disk(1, 300 * MB + SPARE_BYTES), cache=Disk(2, 50 * MB))
    assert not failing(apart, manifest)


@pytest.mark.parametrize("skew_s", [-400.0, 400.0, -1e9])
def test_a_wrong_clock_is_told_and_is_no_fault_of_its_own(manifest: ReleaseManifest, skew_s: float) -> None:
    found = failing(dataclasses.replace(PI, time=NOW_S + skew_s), manifest)
    assert list(found) == ["clock"]
    require("pi", list(found.values()))


def test_a_clock_by_which_the_release_has_expired(manifest: ReleaseManifest) -> None:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW_S + 500))
    short = dataclasses.replace(manifest, expires=expires)
    assert not failing(PI, short)
    with pytest.raises(UserError, match="clock: ") as error:
        require("pi", check(dataclasses.replace(PI, time=NOW_S + 600), short, SIZES, NOW_S))
    assert "timedatectl" in str(error.value.hint)


def test_the_clock_is_set_from_here(manifest: ReleaseManifest) -> None:
    """What is to be typed fills in this machine's time, not the one of the device whose clock is wrong."""
    slow = dataclasses.replace(PI, time=NOW_S - 1e6)
    (clock,) = (one for one in check(slow, manifest, SIZES, NOW_S, "echo -l pi -- board") if one.what == "clock")
    line = clock.hint.partition(", or ")[2]
    typed = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert typed[:-1] == "-l pi -- board sudo date -u -s".split()
    assert abs(float(typed[-1].removeprefix("@")) - time.time()) < 600


def test_another_python_is_asked_what_it_has(tmp_path: Path) -> None:
    """Where a release takes that one, the system's own modules are of no use."""
    (tmp_path / "python9.9").write_text(
        '#!/bin/sh\ncase "$3" in *find_spec*) echo only_there;; *version_info*) echo 9.9;; esac\n'
    )
    (tmp_path / "python9.9").chmod(0o755)
    words = [str(tmp_path), str(tmp_path), "json,only_there", "9.9", "true"]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-I", "-c", source("facts"), *words]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    assert told["others"] == {"python9.9": "9.9"}
    assert told["venv"] is False
    assert told["packages"] == {"json": False, "only_there": True}


def test_another_python_of_the_device_will_do(manifest: ReleaseManifest) -> None:
    facts = dataclasses.replace(PI, python="3.9", others={"python3.11": "3.11"})
    assert failing(facts, manifest) == {}
    assert facts.python_for(manifest.environments) == ("python3.11", "3.11")


def test_the_slot_that_will_be_cleared_counts_as_free(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "slots" / name).mkdir(parents=True)
        (tmp_path / "slots" / name / "model").write_bytes(b"x" * (1 << 20))
    (tmp_path / "current").symlink_to("slots/a")
    command = [sys.executable, "-I", "-c", source("facts"), str(tmp_path), str(tmp_path / "card"), "", "", "false"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert 1 << 20 <= told["clearable"] < 2 << 20
    assert (told["runs"], told["left"]) == (False, True)


def test_the_facts_of_this_machine(tmp_path: Path) -> None:
    """The program that is sent, run as it is there; its answer is what is read here."""
    command = [
        sys.executable,
        "-I",
        "-c",
        source("facts"),
        str(tmp_path / "a" / "b"),
        str(tmp_path / "card"),
        "json,no_such_thing",
        "3.99",
    ]
    command += [sys.executable]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert told["clearable"] == 0
    assert told["packages"] == {"json": True, "no_such_thing": False}
    assert told["root"]["device"] == tmp_path.stat().st_dev
    assert told["writable"]
    assert (told["installed"], told["runs"], told["left"]) == (None, True, False)
    assert told.keys() == {field.name for field in dataclasses.fields(Facts)}
    assert abs(told["time"] - time.time()) < 600
