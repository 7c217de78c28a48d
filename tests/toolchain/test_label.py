"""A baked file's label may be forged: whatever the graph or the chain contradicts is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgemask
from edgemask.errors import UserError

from .files import FOLDER
from .pictures import FOLDER as IMAGES
from .tampering import with_label

Bake = Callable[..., Path]
NAME = "keras_int8.tflite"
PICTURE = IMAGES / "fashion" / "0_t-shirt.png"


def put(*path: Any, value: Any) -> Callable[[Any], Any]:
    """A change of a label: another value at `path`."""

    def change(label: Any) -> Any:
        inner = label
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return label

    return change


def reordered(*order: int) -> Callable[[Any], Any]:
    return lambda label: {**label, "chain": [label["chain"][i] for i in order]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("frame", "height", value=31), r"\$\.frame: not what the graph takes; allowed: frame: uint8 \[1, 32"),
        (put("frame", "batch", value=2), r"\$\.frame: not what the graph takes"),
        (put("frame", "name", value="image"), r"\$\.frame: not what the graph takes"),
        (put("entropy", value=None), r"\$\.frame: not what the graph takes"),
        (put("entropy", "bytes", value=1), r"\$\.frame: not what the graph takes"),
        (put("entropy", "name", value="key"), r"\$\.frame: not what the graph takes"),
        (put("outputs", 0, "name", value="scores"), r"\$\.outputs: not what the graph gives; allowed: probabilities"),
        (put("outputs", value=[]), r"\$\.outputs: not what the graph gives"),
        (put("name", value="../../etc"), r'\$\.name: value "../../etc"; allowed: text like'),
        (put("source", "sha256", value="0"), r"\$\.source\.sha256: value"),
        (put("schema", value=2), r"\$\.schema: value 2; allowed: 1"),
    ],
)  # fmt: skip
def test_no_reader_takes_a_label_that_the_graph_contradicts(
    change: Callable[[Any], Any], problem: str, bake_once: Bake, tmp_path: Path
) -> None:
    path = with_label(bake_once(NAME, "noise"), tmp_path / NAME, change)
    for ask in (edgemask.inspect, edgemask.verify, lambda path: list(edgemask.predict(path, [PICTURE]))):
        with pytest.raises(UserError, match=problem):
            ask(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (reordered(1, 0), "not in the order front, input, rewrites, outputs"),
        (reordered(0), "not in the order front, input, rewrites, outputs"),
        (reordered(0, 1, 1), "not in the order front, input, rewrites, outputs"),
        (put("chain", 0, "role", value="frame"), "step 'noise' of role 'frame' is not known here"),
        (put("chain", 1, "role", value="output"), "step 'input' of role 'output' is not known here"),
        (put("chain", 0, "kind", value="nois"), "step 'nois' of role 'mask' is not known here"),
        (put("chain", 0, "parameters", "strength", value=65), r"\$\.strength: value 65; allowed: 0.5 to 64"),
        (put("chain", 1, "parameters", "layout", value="NWHC"), r"\$\.layout: value \"NWHC\"; allowed: NHWC, NCHW"),
        (put("chain", 1, "parameters", "scale", value=0), r"\$\.scale: value 0"),
    ],
)
def test_verify_takes_no_chain_that_cannot_be(
    change: Callable[[Any], Any], problem: str, bake_once: Bake, tmp_path: Path
) -> None:
    path = with_label(bake_once(NAME, "noise"), tmp_path / NAME, change)
    with pytest.raises(UserError, match=problem):
        edgemask.verify(path)


def test_verify_takes_no_other_way_into_the_model(bake_once: Bake, tmp_path: Path) -> None:
    path = with_label(bake_once(NAME), tmp_path / NAME, put("chain", 0, "parameters", "zero_point", value=3))
    with pytest.raises(
        UserError, match=r"the file feeds the model by input:.*zero_point=3.*, not input:.*zero_point=0"
    ):
        edgemask.verify(path, source=FOLDER / NAME)


def test_predict_takes_no_threshold_without_its_output(bake_once: Bake, tmp_path: Path) -> None:
    path = with_label(bake_once(NAME), tmp_path / NAME, put("thresholds", value={"suspicion": 0.5}))
    with pytest.raises(UserError, match=r"edgemask: \$\.thresholds\.suspicion: unknown key"):
        list(edgemask.predict(path, [PICTURE]))


def test_a_chain_of_other_shapes_fails_and_does_not_break_off(bake_once: Bake, tmp_path: Path) -> None:
    """Four bytes a value of a quarter of the values are as many as one byte a value of all."""

    def change(label: Any) -> Any:
        noise = {**label["chain"][0], "parameters": {"distribution": "gaussian", "strength": 8.0}}
        size = {"width": 16, "height": 16, "interpolation": "nearest"}
        resize = {**noise, "kind": "resize", "role": "frame", "parameters": size}
        return {**label, "chain": [resize, noise, *label["chain"][1:]]}

    path = with_label(bake_once(NAME, "noise:distribution=uniform"), tmp_path / NAME, change)
    parity = edgemask.verify(path)
    assert [entry.name for entry in parity.steps if not entry.passed][:2] == ["1.resize", "2.noise"]
