"""The page on sinks keeps up with the code: every key of every sink, and every signal where the DBC has it."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import cantools
import pytest

from edgemask_runtime.sinks import SINKS, sink_settings

PAGE = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text()
DATABASE: Any = cantools.database.load_string((files("edgemask_runtime.sinks") / "edgemask.dbc").read_text(), "dbc")
ROW = re.compile(r"^\| (`.*?) \| ([\db +,]+) \| ([\d, ]+)(?: each)? \|", re.MULTILINE)


@pytest.mark.parametrize("kind", SINKS)
def test_every_key_is_told(kind: str) -> None:
    heading = "jsonl and text" if kind in ("jsonl", "text") else kind
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert not {field.name for field in fields(sink_settings(kind))} - set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize("name", ["EdgemaskClassification", "EdgemaskObjectsFd", "EdgemaskObjects"])
def test_every_signal_is_told_where_it_is(name: str) -> None:
    section = PAGE.split(f"\n`{name}`, ")[1].split("\n\n`")[0]
    signals = {signal.name: (signal.start, signal.length) for signal in DATABASE.get_message_by_name(name).signals}
    assert set(told(section)) == set(signals)
    assert told(section) == signals


def told(section: str) -> dict[str, tuple[int, int]]:
    """Start and length of each signal; k and b are worked out for every object, and a row of several is taken apart."""
    found = {}
    for words, starts, lengths in ROW.findall(section):
        names = re.findall(r"`(\w+)`", words)
        for number in range(1, 7) if "Objectk" in words else (0,):
            base = 80 + 72 * (number - 1) if "b" in starts else 0
            places = [base + int(place) for place in re.findall(r"\d+", re.sub(r"b(?! \+)", "b + 0", starts))]
            sizes = [int(size) for size in lengths.split(",")] * (1 if "," in lengths else len(names))
            for name, place, size in zip(names, places, sizes, strict=True):
                whole = name.replace("Objectk", "") if number else name
                found[f"Object{number}{whole}" if number else whole] = (place, size)
    return found
