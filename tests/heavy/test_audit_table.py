"""The command behind docs/results.md, from its arguments to the page, on the ten garments of the light tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toolchain.pictures import fashion

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from benchmarks import audit_table
from benchmarks.audit_table import Case, main

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
MODEL = Path(__file__).parents[1] / "models" / "torch_nchw.onnx"
RECIPE = f"""schema = 1
name = "garments"
[model]
file = "{MODEL}"
[frame]
width = 32
height = 32
colour = "rgb"
[[steps]]
kind = "median"
[[steps]]
kind = "normalise"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[[outputs]]
kind = "softmax"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "edgemask.toml").write_text(RECIPE)
    np.savez(tmp_path / "garments.npz", x=np.stack(fashion()), y=np.arange(10, dtype=np.uint8))
    (tmp_path / "page.md").write_text("before\n<!-- garments -->\nold\n<!-- end of garments -->\nafter\n")
    case = Case("garments", ("none", "jpeg:quality=75"), tmp_path)
    monkeypatch.setitem(audit_table.CASES, "garments", case)
    return tmp_path


def written(home: Path, *options: str) -> str:
    folders = ["--data", str(home / "garments.npz"), "--kept", str(home / "kept"), "--write", str(home / "page.md")]
    main(["garments", *folders, "--eps", "16/255", "--workers", "1", *options])
    return (home / "page.md").read_text()


def rows(page: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines[1:]}


def test_the_command_writes_its_table_into_the_page_and_goes_on_where_it_stopped(home: Path) -> None:
    page = written(home)
    found = {chain: dict(zip(audit_table.HEADER[1:], cells, strict=True)) for chain, cells in rows(page).items()}
    assert list(found) == ["none", "`jpeg:quality=75`"]
    assert "L∞ 16/255, n = 10, budget quick" in page
    assert (page.startswith("before\n"), page.endswith("after\n"), "old" in page) == (True, True, False)
    masked = found["`jpeg:quality=75`"]
    assert masked["clean"] == masked["naive PGD"] == "100.0 (72.2–100.0)"
    assert masked["adaptive"] == found["none"]["naive PGD"] == "0.0 (0.0–27.8)"
    assert masked["gradient, robustness"].startswith("shattered")
    kept = {file: file.stat().st_mtime_ns for file in (home / "kept").iterdir()}
    assert written(home) == page
    assert kept == {file: file.stat().st_mtime_ns for file in (home / "kept").iterdir()}


def test_no_row_is_of_fewer_images_than_it_says(home: Path) -> None:
    assert "n = 6, budget quick" in written(home, "--images", "6", "--masks", "none")
    with pytest.raises(SystemExit, match="has 10 images, 11 are asked for"):
        written(home, "--images", "11")
