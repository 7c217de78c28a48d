"""Targets are data: each one reads, a family says once what its members share, and bad data says all its faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgemask import target
from edgemask.cli import app
from edgemask.errors import UserError
from edgemask.target import Target, find_target, targets, versions
from edgemask.target_listing import target_text, targets_text
from edgemask.wheels import lock_for, pinned_pythons
from edgemask_runtime.cameras import CAMERAS
from edgemask_runtime.engines import ENGINES

FOLDER = Path(__file__).parents[2] / "targets"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/target.toml"))
PI = ("raspberrypi-3", "raspberrypi-4", "raspberrypi-5", "raspberrypi-zero2w")
JETSON = ("jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-thor")

GOOD = """
schema = 1
name = "board"
title = "Ein Brett für alle Fälle"
arch = "aarch64"
unit = "cpu"
flash = "any"
[[systems]]
name = "Linux"
python = "3.11"
glibc = "2.36"
[engines]
onnx = "onnxruntime"
tflite = "litert"
providers = ["cpu"]
[packages]
extras = ["can"]
[camera]
kind = "v4l2"
format = "yuyv"
width = 640
height = 480
[budget]
latency_ms = 40
memory_mb = 512
"""
MEMBER = """
schema = 1
name = "{name}"
family = "board"
title = "Eins davon"
cpu = "{cpu}"
features = {features}
memory_mb = {memory}
boards = ["maker,{name}"]
[budget]
latency_ms = {latency}
memory_mb = {budget}
"""


def member(name: str, **values: object) -> str:
    given = {"cpu": "A", "features": '["fp", "asimd"]', "memory": 1024, "latency": 20, "budget": 300, **values}
    return MEMBER.format(name=name, **given)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / "target.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of targets of its own, with one in it."""
    write(tmp_path, "board", GOOD)
    (tmp_path / "README.md").write_text("no target")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(target, "targets_folder", lambda: tmp_path)
    return tmp_path


def test_the_boards_that_are_asked_for_are_there() -> None:
    assert sorted(["host", "arm64", "raspberrypi", *PI, "jetson", *JETSON]) == NAMES == sorted(targets())
    assert find_target("raspberrypi").members == PI
    assert find_target("jetson").members == JETSON


@pytest.mark.parametrize("board", targets().values(), ids=lambda board: board.name)
def test_every_target_reads(board: Target) -> None:
    assert (ENGINES[board.engines.onnx].format, ENGINES[board.engines.tflite].format) == ("onnx", "tflite")
    assert board.camera.kind in CAMERAS
    assert versions(board.glibc) >= (2, 28), "what the locks are made for"


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
@pytest.mark.parametrize("board", targets().values(), ids=lambda board: board.name)
@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_every_target_has_its_wheels_pinned(board: Target, form: str, arch: str) -> None:
    if board.arch not in ("any", arch):
        return
    assert set(board.pythons) <= set(pinned_pythons(arch))
    for python in board.pythons:
        names = {pin.name for pin in lock_for(arch, python, board.extras(form))}  # type: ignore[arg-type]
        engine = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}[form]
        assert (engine in names) == (engine not in board.packages.system)
        assert {"numpy", "cryptography"} <= names
        assert "av" not in names, "104 MB that only few need"


def test_a_family_is_as_good_as_its_least_member() -> None:
    family, members = find_target("raspberrypi"), [find_target(name) for name in PI]
    assert family.memory_mb == 512
    assert set(family.features) == {"fp", "asimd", "crc32"}, "Armv8.0: nothing that a Cortex-A53 lacks"
    assert set(family.boards) == {board for one in members for board in one.boards}
    assert family.budget.memory_mb == min(one.budget.memory_mb for one in members)
    assert family.budget.latency_ms == max(one.budget.latency_ms for one in members)


# What the systems themselves ship: python3 and libc6 of Debian 12 and 13, of Ubuntu 22.04 and 24.04.
BOOKWORM, TRIXIE, JAMMY, NOBLE = ("3.11", "2.36"), ("3.13", "2.41"), ("3.10", "2.35"), ("3.12", "2.39")
SHIPPED = {
    "arm64": {JAMMY, BOOKWORM, NOBLE, TRIXIE},
    "raspberrypi": {BOOKWORM, TRIXIE},
    "jetson": {JAMMY, NOBLE},
    "jetson-thor": {NOBLE},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "host"])
def test_a_release_fits_every_system_that_its_boards_run(name: str) -> None:
    """One that is left out makes a release that half of the boards refuse."""
    board = find_target(name)
    wanted = SHIPPED.get(name) or SHIPPED[board.family or ""]
    assert {(system.python, system.glibc) for system in board.systems} == wanted


def test_a_member_has_what_its_family_says_and_says_the_rest(folder: Path) -> None:
    write(folder, "one", member("one", cpu="A", features='["fp", "asimd", "crc32"]', memory=1024, budget=300))
    write(folder, "two", member("two", cpu="B", features='["fp", "crc32"]', memory=2048, latency=80, budget=200))
    one, family = find_target("one"), find_target("board")
    assert (one.engines, one.systems, one.camera) == (family.engines, family.systems, family.camera)
    assert (one.name, one.cpu, one.budget.latency_ms, one.members) == ("one", "A", 20, ())
    assert (family.cpu, family.features, family.memory_mb) == ("A, B", ("fp", "crc32"), 1024)
    assert (family.budget.latency_ms, family.budget.memory_mb) == (80, 200)
    assert family.boards == ("maker,one", "maker,two")
    assert family.title == "Ein Brett für alle Fälle"


def test_a_folder_is_a_target_when_it_has_a_target_toml(folder: Path) -> None:
    assert list(targets()) == ["board"]
    assert targets()["board"].title == "Ein Brett für alle Fälle"


def test_an_unknown_target_names_the_closest() -> None:
    with pytest.raises(UserError, match="unknown target 'rasberrypi'") as caught:
        find_target("rasberrypi")
    assert caught.value.hint == f"did you mean 'raspberrypi'? allowed: {', '.join(NAMES)}"


def test_broken_targets_say_everything(folder: Path) -> None:
    path = write(
        folder,
        "board",
        GOOD.replace("schema = 1", "schema = 2")
        .replace('"aarch64"', '"arm64"')
        .replace('"onnxruntime"', '"onnxrt"')
        .replace("latency_ms = 40", "latency_ms = 0\nlatencies = 3")
        .replace('"3.11"', '"4"')
        .replace('"litert"', '"litter"'),
    )
    other = write(folder, "other", member("another", memory=100).replace('"board"', '"boards"'))
    with pytest.raises(UserError) as caught:
        targets()
    told = caught.value.message.splitlines()
    assert told[:6] == [
        f"{path}: {line}"
        for line in [
            "$.schema: value 2; allowed: 1",
            "$.arch: value \"arm64\"; allowed: any, aarch64, x86_64; did you mean 'aarch64'?",
            "$.engines.onnx: value \"onnxrt\"; allowed: onnxruntime; did you mean 'onnxruntime'?",
            "$.engines.tflite: value \"litter\"; allowed: litert; did you mean 'litert'?",
            '$.systems[0].python: value "4"; allowed: text like 3\\.[0-9]{1,2}',
            "$.budget.latencies: unknown key; allowed: latency_ms, memory_mb; did you mean 'latency_ms'?",
        ]
    ]
    assert f"{other}: $.family: value \"boards\"; allowed: board; did you mean 'board'?" in told


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (('name = "one"', 'name = "won"'), '$.name: value "won"; allowed: the folder\'s name, one'),
        (("memory_mb = 1024", "memory_mb = 256"), "$.budget.memory_mb: value 300; allowed: less than 256"),
        (("memory_mb = 1024\n", ""), "$: a family's member; allowed: one that states its boards and its memory_mb"),
        (('"maker,one"', '"maker one"'), '$.boards: value ["maker one"]; allowed: device-tree strings'),
        (('"maker,one"', '"maker,One"'), '$.boards: value ["maker,One"]; allowed: device-tree strings, in small'),
        (("schema = 1", "schema = 1\nmembers = []"), "$.members: unknown key; allowed: none: a member names"),
        (("schema = 1", 'schema = 1\nunit = "cuda"'), '$.unit: value "cuda"; allowed: cuda with the provider cuda'),
        (
            ("[budget]", '[power]\nmodes = ["15W", "MAXN"]\nshipped = "MAX"\n[budget]'),
            "$.power.shipped: value \"MAX\"; allowed: 15W, MAXN; did you mean 'MAXN'?",
        ),
    ],
)
def test_what_does_not_go_together(change: tuple[str, str], fault: str, folder: Path) -> None:
    path = write(folder, "one", member("one").replace(*change))
    with pytest.raises(UserError) as caught:
        targets()
    assert caught.value.message.startswith(f"{path}: {fault}")


def test_a_board_of_two_targets_could_not_be_told(folder: Path) -> None:
    write(folder, "one", member("one"))
    write(folder, "two", member("two").replace("maker,two", "maker,one"))
    with pytest.raises(UserError, match=r"maker,one: stated by one, two; allowed: one target"):
        targets()


@pytest.mark.parametrize("content", [b"= 1", b"\xff", b"a = " + b"9" * 5000])
def test_a_target_that_is_no_toml(content: bytes, folder: Path) -> None:
    (folder / "board" / "target.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"board/target\.toml: not valid TOML"):
        targets()


def test_a_recipe_takes_of_a_targets_providers_what_it_will() -> None:
    jetson, host = find_target("jetson").engines, find_target("host").engines
    assert jetson.allowed("onnx", ()) == ("tensorrt", "cuda"), "the CPU is no silent way out"
    assert jetson.allowed("onnx", ("cuda", "cpu")) == ("cuda", "cpu")
    assert jetson.allowed("tflite", ("cpu",)) == host.allowed("tflite", ()) == ()
    with pytest.raises(UserError, match=r"\[runtime\] providers: 'cuda' is not one") as caught:
        host.allowed("onnx", ("cuda",))
    assert caught.value.hint == "allowed: cpu"
    with pytest.raises(UserError, match="a tflite model runs on the CPU alone") as caught:
        jetson.allowed("tflite", ())
    assert 'providers = ["cpu"]' in (caught.value.hint or "")


def test_a_jetson_takes_onnxruntime_from_its_own_system() -> None:
    jetson = find_target("jetson-orin-nano")
    assert jetson.extras("onnx") == {"install", "v4l2", "mqtt", "can"}
    assert jetson.extras("tflite", ("video",)) == {"install", "v4l2", "mqtt", "can", "litert", "video"}


def test_the_table_has_every_target_and_members_below_their_family() -> None:
    lines = targets_text().splitlines()[2:]
    assert sorted(line.split()[0] for line in lines) == NAMES
    assert all(line.startswith("  ") == (find_target(line.split()[0]).family is not None) for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_one_target_in_detail(name: str) -> None:
    told = target_text(name)
    assert all(board in told for board in find_target(name).boards)
    assert all(f"Python {python}" in told for python in find_target(name).pythons)


def test_the_command_prints_one_target() -> None:
    run = CliRunner().invoke(app, ["targets", "raspberrypi-5"])
    assert run.stdout.startswith("raspberrypi-5: Raspberry Pi 5")
    values = json.loads(CliRunner().invoke(app, ["targets", "raspberrypi-5", "--json"]).stdout)
    assert (values["family"], values["pythons"], values["glibc"]) == ("raspberrypi", ["3.11", "3.13"], "2.36")
