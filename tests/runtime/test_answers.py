from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.answers import Answer, Quantity, read_outputs
from edgemask_runtime.bundle import Manifest, OutputRecord, StepRecord
from edgemask_runtime.detections import Detection
from edgemask_runtime.errors import UserError
from edgemask_runtime.labels import Guess

from .tiny import LABELS, manifest_of


def manifest(*outputs: tuple[str, str], **changes: Any) -> Manifest:
    records = tuple(OutputRecord(name, "float32", (None,), role) for name, role in outputs)  # type: ignore[arg-type]
    return dataclasses.replace(manifest_of(b"", "onnxruntime", False), outputs=records, **changes)


def test_the_best_class_is_read_from_probabilities() -> None:
    outputs = {"p": np.array([[0.5, 0.5, 0, 0], [0.0, 0.25, 0.75, 0]], np.float32)}
    reading = read_outputs(manifest(("p", "probabilities")), outputs, 1)
    assert reading.top == (Guess(2, "cid", 0.75),)
    assert reading.outputs == {"p": [0.0, 0.25, 0.75, 0.0]}
    assert reading.suspicious is None


@pytest.mark.parametrize("labels", [LABELS, None])
def test_top_k_pairs_get_their_labels(labels: tuple[str, ...] | None) -> None:
    outputs = {"i": np.array([[3, 9]], np.int64), "s": np.array([[0.5, 0.25]], np.float32)}
    reading = read_outputs(manifest(("i", "top-indices"), ("s", "top-scores"), labels=labels), outputs)
    assert reading.top == (Guess(3, labels[3] if labels else None, 0.5), Guess(9, None, 0.25))


@pytest.mark.parametrize(("score", "suspicious"), [(1.0, False), (1.2, False), (1.3, True), (np.nan, True)])
def test_suspicion_begins_above_the_threshold(score: float, suspicious: bool) -> None:
    outputs = {"d": np.array([[score]], np.float64)}
    assert read_outputs(manifest(("d", "suspicion"), thresholds={"d": 1.2}), outputs).suspicious is suspicious


def test_an_answer_is_one_flat_json_object() -> None:
    outputs = {"p": np.array([[np.nan, np.inf, 0.5, 0.25]], np.float32), "big": np.zeros((1, 40, 40), np.float32)}
    reading = read_outputs(manifest(("p", "raw"), ("big", "raw")), outputs)
    answer = Answer("door", 7, "a.pgm", 9_000_000, "2026-11-23T05:41:58.000Z", "0" * 64, 1.23456, 0.5, 2, reading)
    assert json.loads(answer.to_json()) == {
        "pipeline": "door",
        "captured_ns": 9_000_000,
        "captured_at": "2026-11-23T05:41:58.000Z",
        "digest": "0" * 64,
        "frame": 7,
        "name": "a.pgm",
        "age_ms": 1.235,
        "latency_ms": 0.5,
        "dropped": 2,
        "top": [],
        "suspicious": None,
        "detections": None,
        "values": None,
        "outputs": {"p": [None, None, 0.5, 0.25], "big": {"dtype": "float32", "shape": [40, 40]}},
    }


FOUND = {
    "boxes": np.array([[[1, 2, 30.5, 40], [5, 6, 7, np.inf], [0, 0, 0, 0]]], np.float32),
    "scores": np.array([[0.75, 0.5, 0]], np.float32),
    "classes": np.array([[1, 9, -1]], np.int32),
    "count": np.array([[2]], np.int32),
    "keypoints": np.array([[[[1, 2]], [[3, np.nan]], [[0, 0]]]], np.float32),
}
ROLES = tuple((name, name) for name in FOUND)


def test_objects_are_read_up_to_their_count() -> None:
    reading = read_outputs(manifest(*ROLES), FOUND)
    first = Detection(1, "bob", 0.75, (1.0, 2.0, 30.5, 40.0), ((1.0, 2.0),))
    assert reading.detections == (first, Detection(9, None, 0.5, (5.0, 6.0, 7.0, None), ((3.0, None),)))
    assert reading.outputs == {}
    assert str(reading) == "bob 0.750 (1, 2, 30, 40); class 9 0.500 (5, 6, 7, ?)"
    assert read_outputs(manifest(*ROLES[:4]), {**FOUND, "count": np.array([[0]])}).detections == ()


def test_a_count_beyond_the_rows_is_no_index_error() -> None:
    assert len(read_outputs(manifest(*ROLES[:4]), {**FOUND, "count": np.array([[99]])}).detections or ()) == 3


def test_a_value_comes_with_the_unit_of_its_step() -> None:
    step = StepRecord("regression", "output", {"scale": 2.0, "unit": "km/h"}, False, "value")
    reading = read_outputs(manifest(("v", "value"), chain=(step,)), {"v": np.array([[12.5, np.nan]], np.float32)})
    assert reading.values == (Quantity(12.5, "km/h"), Quantity(None, "km/h"))
    assert str(reading) == "12.5 km/h, ? km/h"


SHAPES = {
    "boxes": (None, 3, 4),
    "scores": (None, 3),
    "classes": (None, 3),
    "count": (None, 1),
    "keypoints": (None, 3, 1, 2),
}
WRONG: dict[str, dict[str, tuple[int | None, ...] | None]] = {
    "boxes of three": {"boxes": (None, 3, 3)},
    "fewer classes": {"classes": (None, 2)},
    "two counts": {"count": (None, 2)},
    "flat points": {"keypoints": (None, 3, 2)},
    "no rows": {"scores": (None,)},
    "no scores": {"scores": None},
}


def detecting(changes: dict[str, tuple[int | None, ...] | None]) -> str:
    shapes = {name: shape for name, shape in (SHAPES | changes).items() if shape is not None}
    records = tuple(OutputRecord(name, "float32", shape, name) for name, shape in shapes.items())  # type: ignore[arg-type]
    return dataclasses.replace(manifest_of(b"", "onnxruntime", False), outputs=records).to_json()


def test_a_manifest_whose_roles_fit_each_other_is_read() -> None:
    assert len(Manifest.from_json(detecting({})).outputs) == 5
    assert len(Manifest.from_json(detecting({"keypoints": None})).outputs) == 4


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_manifest_whose_roles_contradict_each_other_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"\$\.outputs"):
        Manifest.from_json(detecting(changes))
