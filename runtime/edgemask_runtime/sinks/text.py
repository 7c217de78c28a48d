"""One line an answer, to read in a terminal."""

from __future__ import annotations

from edgemask_runtime.answers import Answer, Guess
from edgemask_runtime.sinks.jsonl import JsonLines


class TextLines(JsonLines):
    """The best classes, suspicion, latency and age; raw outputs are left to JSON."""

    def line(self, answer: Answer) -> str:
        """Return the answer as text."""
        told = ", ".join(map(_guess, answer.reading.top)) or "-"
        suspicion = "  SUSPICIOUS" if answer.reading.suspicious else ""
        times = f"{answer.latency_ms:.1f} ms, age {answer.age_ms:.1f} ms"
        return f"{answer.frame:6}  {answer.name:20}  {told:40}{suspicion}  {times}"


def _guess(guess: Guess) -> str:
    name = guess.label or f"class {guess.index}"
    return name if guess.score is None else f"{name} {guess.score:.3f}"
