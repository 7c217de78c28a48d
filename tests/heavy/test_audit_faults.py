"""What an audit does when it is cut short, when data or model do not fit, and when an engine fails in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

import edgemask
from edgemask.errors import UserError

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from .mnist import digits, lenet5

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
LONGEST_S = 1800
RECIPE = """schema = 1
name = "digits"
[model]
file = "net.onnx"
[frame]
width = 28
height = 28
colour = "gray"
[[steps]]
kind = "jpeg"
[[steps]]
kind = "normalise"
"""
Folder = Path
INTERRUPTIBLE = """
import signal
from edgemask.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""What a shell starts in the background ignores Ctrl-C, and so would all that pytest starts there."""


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    """A recipe, its model and 8 digits, where `edgemask audit` is run."""
    lenet5("cln", tmp_path / "net.onnx")
    (tmp_path / "edgemask.toml").write_text(RECIPE)
    save(tmp_path, 8)
    return tmp_path


def save(home: Folder, count: int, change: Any = lambda images: images) -> None:
    images, labels = digits(count)
    np.savez(home / "digits.npz", x=change(images), y=labels)


def audited(home: Folder, **options: Any) -> Any:
    asked = {"eps": "0.2", "out": home / "out", "workers": 1, **options}
    return edgemask.audit(home / "edgemask.toml", home / "digits.npz", **asked)


def test_a_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(home: Folder) -> None:
    """As a terminal sends it, to every process of the group."""
    words = "audit edgemask.toml --data digits.npz --eps 0.2 -o out --workers 2".split()
    command = [sys.executable, "-c", INTERRUPTIBLE, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=home, start_new_session=True, **pipes)
    until(lambda: len(list((home / "out" / "kept").glob("*.npz"))) >= 2 or running.poll() is not None)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=LONGEST_S)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    until(lambda: not alive(running.pid))
    assert not (home / "out" / "audit.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in (home / "out" / "kept").glob("*.npz")}
    for file in kept:
        with np.load(file, allow_pickle=False) as found:
            assert found["found"].shape[1:] == (28, 28, 1)
    ended = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=LONGEST_S)
    assert ended.returncode == 0, ended.stderr
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(list((home / "out" / "kept").glob("*.npz"))) > len(kept)
    assert json.loads((home / "out" / "audit.json").read_text())["n"] == 8


def test_an_engine_that_fails_in_the_middle_is_one_error(home: Folder) -> None:
    """A table that ends above the brightest pixel of any digit here, and below what an attack makes of it."""
    with_short_table(home / "net.onnx", 150)
    save(home, 32, lambda images: images // 2)
    with pytest.raises(UserError, match=r"onnxruntime: the model fails on this input: .*out of data bounds"):
        audited(home)
    assert not (home / "out" / "audit.json").exists()


def test_fewer_images_than_asked_are_told_everywhere(home: Folder) -> None:
    save(home, 12, lambda images: np.repeat(np.repeat(images, 2, 1), 2, 2))
    words = "audit edgemask.toml --data digits.npz --eps 0.2 -o out --workers 1 --limit 500".split()
    ended = subprocess.run(
        [sys.executable, "-m", "edgemask", *words], cwd=home, capture_output=True, text=True, timeout=LONGEST_S
    )
    assert ended.returncode == 0, ended.stderr
    few = "500 images were asked for, and digits.npz has 12: every figure is of these"
    other = "12 of 12 images have another size and were brought to 28x28 before all else"
    assert f"note: {few}" in ended.stdout
    assert "digits: 12 images, 10 classes, linf 51/255 on the frame, budget quick" in ended.stdout
    assert json.loads((home / "out" / "audit.json").read_text())["notes"] == [few, other]
    assert few in (home / "out" / "audit.html").read_text()


def test_a_file_that_tells_the_best_class_alone_is_audited_by_it(home: Folder) -> None:
    with (home / "edgemask.toml").open("a") as file:
        file.write('[[outputs]]\nkind = "top-1-only"\n')
    report = audited(home, limit=12)
    knows = {row.knowledge for rows in (report.rows, *report.compared.values()) for row in rows}
    assert "scores" not in knows
    assert report.adaptive.value < 0.2


def test_data_and_models_that_do_not_fit_are_refused(home: Folder) -> None:
    for folder in ("images", "masks"):
        (home / "maps" / folder).mkdir(parents=True)
        Image.new("L", (28, 28)).save(home / "maps" / folder / "a.png")
    with pytest.raises(UserError, match="is for segmentation") as caught:
        edgemask.audit(home / "edgemask.toml", home / "maps", out=home / "out")
    assert caught.value.hint == "the audit is of classification alone yet"
    with pytest.raises(UserError, match=r"nothing\.npz: no folder and no \.npz file"):
        edgemask.audit(home / "edgemask.toml", home / "nothing.npz", out=home / "out")
    np.savez(home / "digits.npz", x=np.zeros((2, 28, 28, 2), np.uint8), y=np.zeros(2, int))
    with pytest.raises(UserError, match=r"x is uint8 \(2, 28, 28, 2\)"):
        audited(home)
    (home / "net.onnx").unlink()
    with pytest.raises(UserError, match=r"net\.onnx: cannot read: No such file or directory"):
        audited(home)
    assert not (home / "out" / "audit.json").exists()


def with_short_table(path: Path, size: int) -> None:
    """Let the model read a table at the frame's largest pixel, which fails beyond its end; it adds zeros."""
    proto = onnx.load(path)
    graph = proto.graph
    graph.node[-1].output[0] = "scores"
    constants = {"table": np.zeros(size, np.float32), "full": np.array(255, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
            helper.make_node("Mul", ["top", "full"], ["level"]),
            helper.make_node("Cast", ["level"], ["at"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["table", "at"], ["nothing"]),
            helper.make_node("Add", ["scores", "nothing"], ["logits"]),
        ]
    )
    onnx.save(proto, path)


def until(holds: Any) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
