"""Answers as text."""

from __future__ import annotations

from pathlib import Path

from edgemask_runtime.answers import Answer, Guess, Reading
from edgemask_runtime.sinks import open_sink


def written(reading: Reading, target: Path) -> str:
    sink = open_sink("text", target)
    sink.write(Answer(7, "door.png", 3.25, 1.75, 0, reading))
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
