"""Answers as text."""

from __future__ import annotations

from pathlib import Path

from edgemask_runtime.answers import Answer, Quantity, Reading
from edgemask_runtime.detections import Detection
from edgemask_runtime.labels import Guess
from edgemask_runtime.sinks import SinkContext, open_sink, sink_settings

from .tiny import manifest_of


def written(reading: Reading, target: Path) -> str:
    sink = open_sink("text", sink_settings("text")(target), SinkContext("door", manifest_of(b"", "onnxruntime", False)))
    sink.write(Answer("door", 7, "door.png", 0, "2026-11-23T05:41:58.000Z", "0" * 64, 3.25, 1.75, 0, reading), None)
    sink.close()
    return target.read_text()


def test_a_line_tells_frame_classes_and_times(tmp_path: Path) -> None:
    line = written(Reading((Guess(3, "cat", 0.75), Guess(5, None, 0.125)), None, {}), tmp_path / "answers")
    words = line.split()
    assert words == ["7", "door.png", "cat", "0.750,", "class", "5", "0.125", "1.8", "ms,", "age", "3.2", "ms"]
    assert line.count("\n") == 1


def test_suspicion_is_said_aloud(tmp_path: Path) -> None:
    assert "SUSPICIOUS" in written(Reading((), True, {"suspicion": [1.5]}), tmp_path / "answers")
    assert "SUSPICIOUS" not in written(Reading((), False, {"suspicion": [0.5]}), tmp_path / "calm")


def test_objects_and_values_are_told(tmp_path: Path) -> None:
    found = Detection(0, "face", 0.9375, (10.0, 20.0, 30.0, 44.0), None)
    assert "face 0.938 (10, 20, 30, 44)" in written(Reading((), None, {}, (found,)), tmp_path / "found")
    assert "nothing found" in written(Reading((), None, {}, ()), tmp_path / "nothing")
    assert "12.5 km/h" in written(Reading((), None, {}, values=(Quantity(12.5, "km/h"),)), tmp_path / "value")
