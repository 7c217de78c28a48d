from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.answers import Answer, Guess, read_outputs
from edgemask_runtime.bundle import Manifest, OutputRecord

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
    written = json.dumps(Answer(7, "a.pgm", 1.23456, 0.5, 2, reading).to_dict(), allow_nan=False)
    assert json.loads(written) == {
        "frame": 7,
        "name": "a.pgm",
        "age_ms": 1.235,
        "latency_ms": 0.5,
        "dropped": 2,
        "top": [],
        "suspicious": None,
        "outputs": {"p": [None, None, 0.5, 0.25], "big": {"dtype": "float32", "shape": [40, 40]}},
    }
