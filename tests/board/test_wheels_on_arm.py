"""The wheels of a release and the models in it, on the processors of the boards: imports, probes, int8 accuracy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemask
from edgemask.calibration import wilson
from edgemask.quantisation.options import chosen
from edgemask.target import find_target
from edgemask.wheels import lock_for
from edgemask.wheels.fetching import run_pip
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.images import list_images, read_image
from edgemask_runtime.predictor import Predictor

from .foreign import EXTRAS, PROCESSORS, SUITES, Processor, prepare, run, unzip

pytestmark = pytest.mark.board
HERE, EXAMPLE = Path(__file__).parent, Path(__file__).parents[2] / "examples" / "driver-id"
KINDS = ("onnx", "tflite")
# A sum in another order changes an answer only where two classes are as good as equal.
MAY_DIFFER = 2


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's own faces: train to calibrate on, test to be asked."""
    folder = tmp_path_factory.mktemp("faces")
    for split in ("train", "test"):
        command = [sys.executable, EXAMPLE / "faces.py", "--split", split, "--out", folder / split]
        subprocess.run([str(part) for part in command], check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def labelled(faces: Path) -> tuple[np.ndarray, np.ndarray]:
    files = list(list_images(faces / "test"))
    frames = [read_image(file, width=92, height=112, colour="gray").pixels for file in files]
    return np.stack(frames), np.array([int(file.name[1:3]) - 1 for file in files])


@pytest.fixture(scope="module")
def work(faces: Path, labelled: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the board is given: the example as ONNX and as TFLite, as floats and as int8, the runtime, and the faces."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "bundles").mkdir()
    for kind in KINDS:
        recipe = folder / f"{kind}.toml"
        text = (EXAMPLE / "edgemask.toml").read_text().replace("driver-id.onnx", str(EXAMPLE / f"driver-id.{kind}"))
        recipe.write_text(text.replace('"labels.txt"', f'"{EXAMPLE}/labels.txt"'))
        for name, precision in (("float", None), ("int8", chosen("int8", faces / "train"))):
            built = edgemask.build(recipe, "raspberrypi", folder / "built" / name, precision=precision)
            shutil.copy(built.bundle, folder / "bundles" / f"{kind}-{name}.edgemask")
    np.savez(folder / "faces.npz", x=labelled[0])
    shutil.copy(HERE / "answering.py", folder)
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def here(work: Path, labelled: tuple[np.ndarray, np.ndarray]) -> dict[str, list[int]]:
    """What this machine answers."""
    found = {}
    for path in sorted((work / "bundles").iterdir()):
        predictor = Predictor.open(Bundle.open(path))
        found[path.stem] = [predictor.predict(face[None]).read().top[0].index for face in labelled[0]]
    return found


Told = Callable[[Processor, str], dict[str, Any]]


@pytest.fixture(scope="module")
def told(work: Path) -> Told:
    """What a processor with that Python said; it is asked once."""
    known: dict[tuple[Processor, str], dict[str, Any]] = {}

    def ask(processor: Processor, python: str) -> dict[str, Any]:
        if (processor, python) not in known:
            known[processor, python] = run(processor, python, work, "answering.py")
        return known[processor, python]

    return ask


def _all() -> Iterator[Any]:
    """Every processor with every Python; in the short form one Python each, in turn."""
    for one, processor in enumerate(PROCESSORS):
        for other, python in enumerate(SUITES):
            marks = [pytest.mark.slow] if (one + other) % 2 else []
            yield pytest.param(processor, python, marks=marks, id=f"{processor.name}-{python}")


boards = pytest.mark.parametrize(("processor", "python"), [*_all()])


@boards
def test_every_wheel_of_a_release_runs_there(processor: Processor, python: str, told: Told) -> None:
    found = told(processor, python)
    assert (found["machine"], found["python"].rpartition(".")[0]) == ("aarch64", python)
    assert found["glibc"] == min(s.glibc for s in find_target(processor.board).systems if s.python == python)
    assert {name: said for name, said in found["imports"].items() if said != "ok"} == {}
    pinned = {pin.name for pin in lock_for("aarch64", python, EXTRAS)} | {"edgemask-runtime"}
    assert {re.sub(r"[._]", "-", name) for name in found["installed"]} == pinned
    assert found["signed"]


@boards
def test_every_artefact_answers_there_as_its_probe_says(
    processor: Processor, python: str, told: Told, here: dict[str, list[int]]
) -> None:
    found = told(processor, python)["answers"]
    assert sorted(found) == ["onnx-float", "onnx-int8", "tflite-float", "tflite-int8"]
    for name, said in found.items():
        print(f"{processor.name}, Python {python}, {name}: {said['engine']}: {said['probe']}")
        assert "outputs like" in said["probe"]
        if name.endswith("float"):
            differ = sum(a != b for a, b in zip(said["labels"], here[name], strict=True))
            assert differ <= MAY_DIFFER, f"{differ} of {len(here[name])} answers are others than on this machine"


@boards
def test_int8_is_as_right_there(
    processor: Processor, python: str, told: Told, labelled: tuple[np.ndarray, np.ndarray], here: dict[str, list[int]]
) -> None:
    found, truth = told(processor, python)["answers"], labelled[1]
    for kind in KINDS:
        right = {name: int((np.array(found[f"{kind}-{name}"]["labels"]) == truth).sum()) for name in ("float", "int8")}
        here_right = int((np.array(here[f"{kind}-int8"]) == truth).sum())
        low, high = wilson(right["int8"], len(truth))
        print(
            f"{processor.name}, Python {python}, {kind}: int8 {right['int8']} of {len(truth)} "
            f"({low:.1%} to {high:.1%}, 95 %), float {right['float']}; on this machine int8 {here_right}"
        )
        assert low <= right["float"] / len(truth) <= high or right["int8"] > right["float"]


@pytest.mark.slow
def test_the_gate_sees_a_wheel_that_armv8_0_cannot_run(tmp_path: Path) -> None:
    """onnxruntime 1.21.0 for aarch64 has an instruction that no Cortex-A72 knows: a real Pi 4 dies of it, too."""
    run_pip(["onnxruntime==1.21.0"], tmp_path, "aarch64", "3.11", 1)
    [wheel] = tmp_path.glob("*.whl")
    unzip(wheel, tmp_path / "site")
    (tmp_path / "import.py").write_text("import json, onnxruntime\nprint(json.dumps({'v': onnxruntime.__version__}))\n")
    assert run(PROCESSORS[2], "3.11", tmp_path, "import.py") == {"v": "1.21.0"}
    with pytest.raises(AssertionError, match=r"Illegal instruction|3\.11: (-4|132)"):
        run(PROCESSORS[1], "3.11", tmp_path, "import.py")
