from __future__ import annotations

import os
import time

import pytest

from edgemask_runtime.ring.patience import MOMENT_NS, PAUSE, Patience


class Awaited:
    """Something that comes at the look of this number, or to a sleeper; counts who asked."""

    def __init__(self, comes_at: int | None) -> None:
        self.comes_at, self.looks, self.sleeps = comes_at, 0, 0

    def look(self) -> str | None:
        self.looks += 1
        return "seen" if self.comes_at and self.looks % self.comes_at == 0 else None

    def sleep(self) -> str:
        self.sleeps += 1
        return "woken"


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def test_what_comes_at_once_is_seen_without_sleep() -> None:
    awaited, patience = Awaited(comes_at=1), Patience()
    assert {patience.wait(awaited.look, awaited.sleep) for _ in range(50)} == {"seen"}
    assert awaited.sleeps == 0


def test_looking_ends_after_a_moment_and_is_not_tried_again_for_long() -> None:
    awaited, patience = Awaited(comes_at=None), Patience()
    begin_ns = time.monotonic_ns()
    assert patience.wait(awaited.look, awaited.sleep) == "woken"
    assert time.monotonic_ns() - begin_ns >= MOMENT_NS
    looked = awaited.looks
    for _ in range(PAUSE):
        patience.wait(awaited.look, awaited.sleep)
    assert (awaited.looks, awaited.sleeps) == (looked, PAUSE + 1)
    patience.wait(awaited.look, awaited.sleep)
    assert awaited.looks > looked


def test_a_lone_processor_is_left_to_whoever_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    awaited, patience = Awaited(comes_at=1), Patience()
    patience.wait(awaited.look, awaited.sleep)
    assert (awaited.looks, awaited.sleeps) == (0, 1)
