"""What an unsigned text may cost: time and memory that grow with its size, and no faster."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass, field

import pytest

from edgemask_runtime.errors import UserError
from edgemask_runtime.strict_json import SHOWN_FAULTS, Faults, parse, structure

MB = 1 << 20


@dataclass(frozen=True)
class Thing:
    word: str = ""
    inner: dict[str, tuple[int, ...]] = field(default_factory=dict)


def peak_of(work: object, *arguments: object) -> tuple[str, int]:
    """The error's message, and the most memory in use meanwhile."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            work(*arguments)  # type: ignore[operator]
        return caught.value.message, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def structured(text: str) -> None:
    faults = Faults("x")
    structure(Thing, parse(text, "x"), "$", faults)
    if faults:
        raise faults.error("mend it")


def test_a_repeated_key_is_named_wherever_it_is() -> None:
    # A search for each key in all of them would take minutes.
    names = [f"key-{number}" for number in range(100_000)]
    for repeated in (names[0], names[-1]):
        text = "{" + ",".join(f'"{name}":0' for name in [*names, repeated]) + "}"
        with pytest.raises(UserError, match=f"repeated key '{repeated}'"):
            parse(text, "x")
    with pytest.raises(UserError, match="repeated key 'a'"):
        parse('{"b": {"a": 1, "c": 2, "a": 3}}', "x")


def test_all_faults_are_counted_and_as_many_kept_as_are_shown() -> None:
    text = json.dumps({f"word{number}": 0 for number in range(50_000)})
    message, peak = peak_of(structured, text)
    lines = message.splitlines()
    assert len(lines) == SHOWN_FAULTS + 1
    assert lines[0].endswith("did you mean 'word'?")
    assert lines[-1] == f"... and {50_000 - SHOWN_FAULTS} more"
    assert peak < 32 * MB


def test_a_long_key_is_not_written_before_each_value_below_it() -> None:
    message, peak = peak_of(structured, json.dumps({"inner": {"k" * MB: [""] * 50_000}}))
    assert len(message) < 100 * SHOWN_FAULTS * 2
    assert "kkk...[0]: value" in message
    assert peak < 16 * MB


def test_what_is_wrong_is_shown_in_part() -> None:
    message, _ = peak_of(structured, json.dumps({"word": ["x" * MB]}))
    assert len(message) < 200
