"""The short form of the soak: `python -m benchmarks.soak --minutes 30` is the long one."""

from __future__ import annotations

from benchmarks.soak import soak


def test_the_daemon_survives_all_that_goes_wrong_at_once() -> None:
    found = soak(12)
    assert found.faults == []
    for what in ("reloads", "workers killed", "cameras lost", "folders lost", "misbehaved"):
        assert found.counts.get(what, 0) > 0, found.counts
    assert min(found.counts[who] for who in ("pattern", "camera", "http", "ring")) > 10
