"""One line an answer, to read in a terminal."""

from __future__ import annotations

from edgemask_runtime.answers import Answer
from edgemask_runtime.sinks.jsonl import JsonLines


class TextLines(JsonLines):
    """The best classes, the objects found or the values, suspicion, latency and age; raw outputs are left to JSON."""

    def line(self, answer: Answer) -> str:
        """Return the answer as text."""
        told = str(answer.reading) or "-"
        suspicion = "  SUSPICIOUS" if answer.reading.suspicious else ""
        times = f"{answer.latency_ms:.1f} ms, age {answer.age_ms:.1f} ms"
        return f"{answer.frame:6}  {answer.name:20}  {told:40}{suspicion}  {times}"

    def no_answer(self, reason: str) -> str:
        """Return what says that there is no valid answer."""
        return f"{'-':>6}  {self._pipeline:20}  no valid answer: {reason}"
