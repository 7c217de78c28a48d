"""Releases: what goes in, the same on any machine, nothing half-made."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cantools
import pytest
import tomllib
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing

import edgemask
from edgemask import signing
from edgemask.bundle import Built
from edgemask.errors import UserError
from edgemask.releasing import ReleaseOptions, release
from edgemask.target import find_target, targets_folder
from edgemask_runtime.bundle import Bundle, payload_digest
from edgemask_runtime.release import Release
from edgemask_runtime.release import payload_digest as release_digest
from edgemask_runtime.trust import Keys, verify

from .releases import LICENCES, Wheelhouse

EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id" / "edgemask.toml"
CAN = """
[[runtime.can]]
message = "classification"
id = 0x123
"""
Build = Callable[..., Built]


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build the example, with `extra` lines in its recipe; each kind of it once."""
    made: dict[tuple[str, ...], Built] = {}

    def make(target: str, extra: str, name: str) -> Built:
        if (target, extra, name) not in made:
            folder = tmp_path_factory.mktemp("recipe")
            write_recipe(folder, name, extra)
            made[target, extra, name] = edgemask.build(folder / "edgemask.toml", target, folder / "out")
        return made[target, extra, name]

    return make


def write_recipe(folder: Path, name: str = "driver-id", extra: str = "") -> None:
    for file in ("driver-id.onnx", "labels.txt"):
        (folder / file).write_bytes((EXAMPLE.parent / file).read_bytes())
    text = EXAMPLE.read_text().replace('name = "driver-id"', f'name = "{name}"') + extra
    (folder / "edgemask.toml").write_text(text)


@pytest.fixture
def build(tmp_path: Path, wheelhouse: Wheelhouse, built_once: Build) -> Build:
    """The built example in `tmp_path/out`, as if it were built just now."""

    def make(target: str = "raspberrypi", *, extra: str = "", name: str = "driver-id") -> Built:
        built = built_once(target, extra, name)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        shutil.copy(built.bundle, out)
        shutil.copy(built.report, out)
        return dataclasses.replace(built, bundle=out / built.bundle.name, report=out / built.report.name)

    return make


def extracted(opened: Release, to: Path) -> Path:
    for name in opened.manifest.files:
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(opened.read(name))
    return to


def checked(folder: Path) -> str:
    command = [sys.executable, "-m", "edgemask_runtime.daemon", "check", str(folder / "settings.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("target", ["host", "jetson", "raspberrypi"])
def test_a_release_holds_all_that_a_device_needs(
    target: str, build: Build, wheelhouse: Wheelhouse, tmp_path: Path
) -> None:
    built = build(target, extra=CAN)
    made = release(built)
    assert made.path == tmp_path / "out" / f"driver-id-{target}.release"
    opened = Release.open(made.path)
    manifest = opened.manifest
    assert manifest == made.manifest
    assert (manifest.name, manifest.version, manifest.serial, manifest.target) == ("driver-id", "1", 1, target)
    assert manifest.memory_mb == find_target(target).budget.memory_mb
    assert manifest.models["driver-id"].payload == built.digest == payload_digest(built.manifest)
    assert opened.read("models/driver-id.edgemask") == built.bundle.read_bytes()
    for python, environment in manifest.environments.items():
        names = {wheel.removeprefix("wheels/").split("-")[0] for wheel in environment.wheels}
        assert names == {"edgemask_runtime", *LICENCES}
        assert any(f"cp{python.replace('.', '')}" in wheel for wheel in environment.wheels)
    assert {"units/edgemaskd.service", "units/edgemask.sysusers"} <= set(manifest.units)
    daemon = opened.read("units/edgemaskd.service")
    assert b"Type=notify" in daemon
    assert (b"CUDA" in daemon) == (target == "jetson")
    assert not any("edgemaskd-" in unit for unit in manifest.units)
    system = {environment.system for environment in manifest.environments.values()}
    assert system == {("onnxruntime",) if target == "jetson" else ()}
    for _, _, wanted, _ in wheelhouse.asked:
        assert {"install", "images", "can"} <= set(wanted)
        assert ("onnxruntime" in wanted) == (target != "jetson")
    assert manifest.boards == find_target(target).boards
    folder = extracted(opened, tmp_path / "device")
    assert "pipeline driver-id: " in checked(folder)
    database = cantools.database.load_file(folder / "edgemask.dbc")
    assert [message.frame_id for message in database.messages] == [0x123]


def test_any_machine_is_this_machine(build: Build, wheelhouse: Wheelhouse) -> None:
    manifest = release(build("host")).manifest
    assert manifest.arch == os.uname().machine
    assert list(manifest.environments) == [f"{sys.version_info.major}.{sys.version_info.minor}"]
    assert manifest.boards == ()


OTHER_MACHINE = """
import os, sys
from pathlib import Path
os.umask(0o077)
import pytest
from edgemask.releasing import place
from tests.toolchain.releases import Wheelhouse
house = Wheelhouse(Path("house"))
house.folder.mkdir()
place.wheels_for = lambda *given, **named: list(reversed(house.wheels_for(*given, **named)))
import edgemask
built = edgemask.build("edgemask.toml", "raspberrypi", "out")
print(edgemask.release(built).digest)
"""


def test_the_same_payload_on_any_machine(build: Build, tmp_path: Path) -> None:
    """Another folder, user, key, time zone, language, umask and order of files: the same payload."""
    here = release(build())
    there = tmp_path / "elsewhere" / "deeper"
    there.mkdir(parents=True)
    write_recipe(there)
    for file in there.iterdir():
        os.utime(file, (0, 0))
    home = {name: str(there / name) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR")}
    (there / "TMPDIR").mkdir()
    other = {**home, "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "USER": "someone"}
    other["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE],
        cwd=there,
        env={**os.environ, **other},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.strip() == here.digest, done.stderr
    mine = Release.open(here.path)
    theirs = Release.open(there / "out" / "driver-id-raspberrypi.release")
    measured = {"evidence.json", "models/driver-id.edgemask"}
    assert mine.manifest.files.keys() == theirs.manifest.files.keys()
    differing = {name for name, record in mine.manifest.files.items() if theirs.manifest.files[name] != record}
    assert differing <= measured
    assert mine.signatures.signatures[0].key != theirs.signatures.signatures[0].key


def test_a_second_build_is_the_same_file(build: Build) -> None:
    first = release(build()).path.read_bytes()
    assert release(build()).path.read_bytes() == first


def test_what_was_measured_is_no_part_of_the_payload(build: Build, tmp_path: Path) -> None:
    built = build()
    made = release(built)
    evidence = json.loads(Release.open(made.path).read("evidence.json"))
    assert evidence["models"]["driver-id"]["parity"]["passed"] is True
    assert evidence["models"]["driver-id"]["machine"]["arch"] == os.uname().machine
    assert "evidence.json" in made.manifest.files


def test_the_bill_of_materials_is_valid_and_complete(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    made = release(build("jetson"))
    text = Release.open(made.path).read("sbom.cdx.json").decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    parts = {part["bom-ref"]: part for part in document["components"]}
    system = parts.pop("system/onnxruntime")
    assert "hashes" not in system
    wheels = {name.removeprefix("wheels/"): record for name, record in made.manifest.files.items() if "wheels/" in name}
    assert parts.keys() == {*wheels, "model/driver-id"}
    for file, record in wheels.items():
        assert parts[file]["hashes"] == [{"alg": "SHA-256", "content": record.sha256}]
        assert parts[file]["purl"].startswith(f"pkg:pypi/{parts[file]['name']}@{parts[file]['version']}?")
    stated = {part["name"]: part["licenses"] for part in parts.values() if "licenses" in part}
    declared = {"acknowledgement": "declared"}
    assert stated["orjson"] == [{"expression": "Apache-2.0 OR MIT", **declared}]
    assert stated["cryptography"] == [{"license": {"name": "BSD License", **declared}}]
    assert stated["pillow"] == [{"license": {"name": "The words of a licence", **declared}}]
    assert stated["cantools"] == []
    assert stated["edgemask-runtime"] == [{"expression": "Apache-2.0", **declared}]
    expressions = [one["expression"] for licences in stated.values() for one in licences if "expression" in one]
    assert all(not get_spdx_licensing().validate(expression).errors for expression in expressions)
    [model] = [part for part in parts.values() if part["type"] == "machine-learning-model"]
    assert (
        model["hashes"][0]["content"]
        == Bundle.open(made.path.with_suffix(".edgemask")).manifest.files["model.onnx"].sha256
    )
    assert document["metadata"]["timestamp"] == made.manifest.date == "2026-09-21T14:13:20Z"
    assert document["dependencies"][0]["dependsOn"] == [part["bom-ref"] for part in document["components"]]


def test_the_serial_number_of_the_bill_follows_from_its_content(build: Build) -> None:
    def number(**changes: Any) -> str:
        made = release(build(), ReleaseOptions(**changes))
        return str(json.loads(Release.open(made.path).read("sbom.cdx.json"))["serialNumber"])

    assert number() == number()
    assert number() != number(version="2.0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"serial": 0}, "--serial 0 --min-serial 1"),
        ({"serial": 2, "min_serial": 3}, "--serial 2 --min-serial 3"),
        ({"serial": 2**53 + 1}, f"--serial {2**53 + 1} --min-serial 1"),
        ({"version": "../x"}, "--version '../x'"),
        ({"version": ""}, "--version ''"),
        ({"expires": "tomorrow"}, "--expires 'tomorrow'"),
        ({"expires": "2027-02-30"}, "--expires '2027-02-30'"),
        ({"expires": "2001-01-01"}, "--expires 2001-01-01: that is over"),
        ({"revoke_keys": ("abc",)}, "--revoke-key 'abc'"),
        ({"add_keys": ("nobody",)}, "nobody.pub"),
        ({"key": "nobody"}, "nobody.pem: no such key"),
    ],
)
def test_what_no_release_can_state_is_told_before_anything_is_made(
    options: dict[str, Any], said: str, build: Build, wheelhouse: Wheelhouse
) -> None:
    built = build()
    with pytest.raises(UserError) as caught:
        release(built, ReleaseOptions(**options))
    assert said in caught.value.message
    assert caught.value.hint
    assert not wheelhouse.asked
    assert not built.bundle.with_suffix(".release").exists()


def test_nothing_is_signed_that_nobody_could_open(
    build: Build, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build()
    board = dataclasses.replace(find_target("raspberrypi"), boards=("nvidia,P9999",))
    monkeypatch.setattr("edgemask.releasing.making.find_target", lambda name: board)
    with pytest.raises(UserError, match=r'release.json: \$.boards: value \["nvidia,P9999"\]'):
        release(built)
    assert not built.bundle.with_suffix(".release").exists()


def test_the_largest_serial_can_be_opened(build: Build) -> None:
    assert Release.open(release(build(), ReleaseOptions(serial=2**53)).path).manifest.serial == 2**53


def test_what_an_editor_leaves_beside_the_units_stays_here(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = build()
    wanted = release(built).manifest.units
    shutil.copytree(targets_folder() / "units", tmp_path / "units")
    for name in (".edgemask.sysusers.swp", ".edgemaskd-cpu.service", "edgemaskd-cpu.service~", "#edgemask.sysusers#"):
        (tmp_path / "units" / name).write_text("half a unit")
    monkeypatch.setattr("edgemask.releasing.units.targets_folder", lambda: tmp_path)
    assert Release.open(release(built).path).manifest.units == wanted


def test_numbers_dates_and_keys_are_as_stated(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.keygen("release")
    successor = signing.keygen("successor")
    options = ReleaseOptions(7, 3, "2090-06-30", "7.1 (spring)".replace(" (spring)", "-spring"), key="release")
    options = dataclasses.replace(options, add_keys=("successor",), revoke_keys=("0" * 16,))
    made = release(build(), options)
    manifest = Release.open(made.path).manifest
    assert (manifest.serial, manifest.min_serial, manifest.version) == (7, 3, "7.1-spring")
    assert (manifest.expires, manifest.date) == ("2090-06-30T00:00:00Z", None)
    assert manifest.keys.add == (successor.public.text,)
    assert manifest.keys.revoke == ("0" * 16,)
    assert made.digest == release_digest(manifest) != release(build()).digest


def test_the_signature_is_the_keys(build: Build) -> None:
    own = signing.keygen("release")
    opened = Release.open(release(build(), ReleaseOptions(key="release")).path)
    assert verify(opened.signed, opened.signatures, Keys().enrol(own.public, "test")).id == own.public.id
    other = signing.keygen("other")
    with pytest.raises(UserError, match="not enrolled here"):
        verify(opened.signed, opened.signatures, Keys().enrol(other.public, "test"))
    development = Release.open(release(build()).path)
    assert [one.development for one in development.signatures.signatures] == [True]


def test_a_development_key_is_nothing_to_pass_on(build: Build) -> None:
    release(build())
    with pytest.raises(UserError, match="a development key"):
        release(build(), ReleaseOptions(add_keys=("development",)))


@pytest.mark.parametrize("epoch", ["-1", "now", "1e9", "9" * 13, "٣"])
def test_a_date_that_is_none_is_refused(epoch: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UserError, match="SOURCE_DATE_EPOCH="):
        release(built)


SETTINGS = """
schema = 1
[[models]]
name = "faces"
bundle = "models/driver-id.edgemask"
[http]
listen = "127.0.0.1:8700"
[grpc]
listen = "127.0.0.1:8701"
[[pipelines]]
name = "door"
model = "faces"
[pipelines.source]
kind = "stream"
url = "rtsp://10.0.0.7/live"
"""


def test_settings_of_ones_own_decide_what_comes_along(build: Build, wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(SETTINGS)
    made = release(build(), ReleaseOptions(settings=own, offline=True))
    assert Release.open(made.path).read("settings.toml").decode() == SETTINGS
    for _, _, wanted, offline in wheelhouse.asked:
        assert {"grpc", "video", "onnxruntime", "install"} <= set(wanted)
        assert offline


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("models/driver-id", "driver-id", "$.models[0].bundle: driver-id.edgemask: no such bundle"),
        ('kind = "stream"', 'kind = "steam"', "did you mean 'stream'?"),
        ("127.0.0.1:8700", "0.0.0.0:8700", "$.http.listen"),
        ("schema = 1", "schema = 1\n[", "not valid TOML"),
    ],
)
def test_settings_that_the_device_would_refuse_make_no_release(
    old: str, new: str, said: str, build: Build, wheelhouse: Wheelhouse, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(SETTINGS.replace(old, new))
    with pytest.raises(UserError) as caught:
        release(build(), ReleaseOptions(settings=own))
    assert caught.value.message.startswith(f"{own}: ")
    assert said in caught.value.message
    assert "models/driver-id.edgemask" in (caught.value.hint or "")
    assert not wheelhouse.asked


def test_settings_are_toml(build: Build, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a \.toml file"):
        release(build(), ReleaseOptions(settings=tmp_path / "own.json"))
    with pytest.raises(UserError, match="cannot read"):
        release(build(), ReleaseOptions(settings=tmp_path / "none.toml"))


def test_a_key_is_looked_for_where_its_owner_puts_it(build: Build, tmp_path: Path) -> None:
    shuffle = '[[steps]]\nkind = "block-shuffle"\n'
    text = EXAMPLE.read_text().replace('[[steps]]\nkind = "jpeg"', f'{shuffle}\n[[steps]]\nkind = "jpeg"', 1)
    folder = tmp_path / "keyed"
    folder.mkdir()
    for file in ("driver-id.onnx", "labels.txt"):
        (folder / file).write_bytes((EXAMPLE.parent / file).read_bytes())
    (folder / "edgemask.toml").write_text(text)
    built = edgemask.build(folder / "edgemask.toml", "raspberrypi", tmp_path / "out", trained_with_mask=True)
    made = release(built)
    [model] = tomllib.loads(Release.open(made.path).read("settings.toml").decode())["models"]
    assert model["key"] == "/etc/edgemask/driver-id.key"


def test_more_bundles_go_along(build: Build, tmp_path: Path) -> None:
    other = build(name="other", extra=CAN)
    made = release(build(), ReleaseOptions(also=(other.bundle,)))
    opened = Release.open(made.path)
    assert set(opened.manifest.models) == {"driver-id", "other"}
    told = checked(extracted(opened, tmp_path / "device"))
    assert "model other: " in told
    assert "pipeline driver-id" in told


@pytest.mark.parametrize(
    ("target", "name", "extra", "said"),
    [
        ("jetson", "other", "", "built for jetson, not raspberrypi"),
        ("raspberrypi", "driver-id", "", "there is a bundle 'driver-id'"),
        ("raspberrypi", "other", CAN, "both state CAN messages"),
    ],
)
def test_bundles_that_do_not_go_together(
    target: str, name: str, extra: str, said: str, build: Build, tmp_path: Path
) -> None:
    other = build(target, name=name, extra=extra).bundle.rename(tmp_path / "other.edgemask")
    with pytest.raises(UserError, match=said):
        release(build(extra=CAN), ReleaseOptions(also=(other,)))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), UserError("numpy cannot be fetched"), OSError(5, "broken")])
def test_what_fails_leaves_the_old_release_as_it_was(
    fault: BaseException, build: Build, wheelhouse: Wheelhouse, tmp_path: Path
) -> None:
    before = release(build()).path.read_bytes()
    wheelhouse.fault = fault
    with pytest.raises(type(fault)):
        release(build(), ReleaseOptions(serial=2))
    assert (tmp_path / "out" / "driver-id-raspberrypi.release").read_bytes() == before
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".edgemask", ".md", ".release"]


def test_no_room_is_one_clear_error(build: Build, wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    built = build()
    before = release(built).path.read_bytes()
    wheelhouse.bytes = 1 << 20
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
        with pytest.raises(UserError, match=r"driver-id-raspberrypi\.release: cannot write: File too large"):
            release(built, ReleaseOptions(serial=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert built.bundle.with_suffix(".release").read_bytes() == before
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".edgemask", ".md", ".release"]


def test_the_report_tells_what_takes_how_much(build: Build) -> None:
    built = build()
    release(built)
    made = release(built, ReleaseOptions(serial=2))
    report = built.report.read_text()
    assert report.count("## Release") == 1
    assert made.digest in report
    assert f"| all | {made.sizes.total / 1e6:.2f} |" in report
    assert made.sizes.total == sum(record.bytes for record in made.manifest.files.values())
    assert made.sizes.without_wheels < made.sizes.total


def test_a_release_can_be_inspected(build: Build, tmp_path: Path) -> None:
    signing.keygen("release")
    made = release(build(), ReleaseOptions(serial=4, key="release"))
    found = edgemask.inspect(made.path)
    assert found["payload_digest"] == made.digest
    assert (found["serial"], found["target"], found["format"]) == (4, "raspberrypi", "release")
    assert [(one["name"], one["good"], one["development"]) for one in found["signatures"]] == [("release", True, False)]
    assert found["sizes"] == made.sizes.to_json()
    (tmp_path / "config" / "edgemask" / "keys" / "release.pub").unlink()
    assert [one["good"] for one in edgemask.inspect(made.path)["signatures"]] == [None]
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not a sound release"):
        edgemask.inspect(made.path)
