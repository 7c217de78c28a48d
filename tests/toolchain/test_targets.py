"""Targets are data: each one reads, and a broken one says everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemask import target
from edgemask.errors import UserError
from edgemask.target import find_target, targets
from edgemask_runtime.engines import ENGINES

FOLDER = Path(__file__).parents[2] / "targets"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/target.toml"))

GOOD = """
schema = 1
name = "board"
title = "Ein Brett für alle Fälle"
arch = "aarch64"
python = "3.11"
[engines]
onnx = "onnxruntime"
tflite = "litert"
providers = ["cpu"]
[budget]
latency_ms = 40
memory_mb = 512
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of targets of its own, with one in it."""
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "target.toml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "README.md").write_text("no target")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(target, "targets_folder", lambda: tmp_path)
    return tmp_path


def test_the_boards_that_are_asked_for_are_there() -> None:
    assert {"host", "jetson", "raspberrypi"} <= set(NAMES)
    assert sorted(targets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_target_reads(name: str) -> None:
    board = find_target(name)
    assert board.name == name
    assert (ENGINES[board.engines.onnx].format, ENGINES[board.engines.tflite].format) == ("onnx", "tflite")
    assert tuple(map(int, board.python.split("."))) >= (3, 10)
    assert min(board.budget.latency_ms, board.budget.memory_mb) > 0


def test_a_folder_is_a_target_when_it_has_a_target_toml(folder: Path) -> None:
    assert list(targets()) == ["board"]
    assert targets()["board"].title == "Ein Brett für alle Fälle"


def test_an_unknown_target_names_the_closest() -> None:
    with pytest.raises(UserError, match="unknown target 'rasberrypi'") as caught:
        find_target("rasberrypi")
    assert caught.value.hint == f"did you mean 'raspberrypi'? allowed: {', '.join(NAMES)}"


def test_a_broken_target_says_everything(folder: Path) -> None:
    path = folder / "board" / "target.toml"
    path.write_text(
        GOOD.replace("schema = 1", "schema = 2")
        .replace('"aarch64"', '"arm64"')
        .replace('"onnxruntime"', '"onnxrt"')
        .replace("latency_ms = 40", "latency_ms = 0\nlatencies = 3")
        .replace("title", "titel")
    )
    with pytest.raises(UserError) as caught:
        find_target("board")
    assert caught.value.message.splitlines() == [
        f"{path}: {line}"
        for line in [
            "$.titel: unknown key; allowed: schema, name, title, arch, python, engines, budget; did you mean 'title'?",
            "$.title: missing",
            "$.schema: value 2; allowed: 1",
            "$.arch: value \"arm64\"; allowed: any, aarch64, x86_64, armv7l; did you mean 'aarch64'?",
            "$.engines.onnx: value \"onnxrt\"; allowed: onnxruntime; did you mean 'onnxruntime'?",
            "$.budget.latencies: unknown key; allowed: latency_ms, memory_mb; did you mean 'latency_ms'?",
            "$.budget.latency_ms: value 0; allowed: 1 or more",
        ]
    ]


@pytest.mark.parametrize("content", [b"= 1", b"\xff", b"a = " + b"9" * 5000])
def test_a_target_that_is_no_toml(content: bytes, folder: Path) -> None:
    (folder / "board" / "target.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"board/target\.toml: not valid TOML"):
        targets()


def test_a_recipe_takes_of_a_targets_providers_what_it_will() -> None:
    jetson, host = find_target("jetson").engines, find_target("host").engines
    assert jetson.allowed("onnx", ()) == ("tensorrt", "cuda", "cpu")
    assert jetson.allowed("onnx", ("cuda",)) == ("cuda",)
    assert jetson.allowed("tflite", ()) == ()
    with pytest.raises(UserError, match=r"\[runtime\] providers: 'cuda' is not one") as caught:
        host.allowed("onnx", ("cuda",))
    assert caught.value.hint == "allowed: cpu"
