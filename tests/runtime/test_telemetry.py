"""Counters and histograms: what a web page and a monitor read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemask_runtime.telemetry import BOUNDS_MS, KEPT_EVENTS, Histogram, Telemetry


@given(st.lists(st.floats(0.01, 20_000), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(times_ms: list[float], share: float) -> None:
    histogram = Histogram()
    for ms in times_ms:
        histogram.observe(ms)
    exact = float(np.quantile(times_ms, share, method="inverted_cdf"))
    edges = [0.0, *(bound for bound in BOUNDS_MS if bound < histogram.largest_ms), histogram.largest_ms]
    bucket = min(int(np.searchsorted(edges, exact, side="left")), len(edges) - 1)
    assert edges[max(bucket - 1, 0)] <= histogram.quantile(share) <= edges[bucket] * (1 + 1e-9)
    assert histogram.count == sum(histogram.counts) == len(times_ms)
    assert histogram.sum_ms == pytest.approx(sum(times_ms))


def test_a_bound_belongs_to_its_bucket_and_nothing_to_none() -> None:
    histogram = Histogram()
    assert (histogram.quantile(0.5), str(histogram)) == (0.0, "median 0.00 ms, p99 0.00 ms")
    histogram.observe(1.0)
    histogram.observe(1e9)
    assert histogram.counts[BOUNDS_MS.index(1.0)] == histogram.counts[-1] == 1
    assert histogram.quantile(1.0) == 1e9


def test_all_of_it_is_json_and_events_are_bounded() -> None:
    telemetry = Telemetry()
    telemetry.pipeline("front").infer.observe(3.0)
    for number in range(KEPT_EVENTS + 5):
        telemetry.tell("suspicious", "front", f"frame {number}")
    telemetry.raise_alarm("front", "first")
    telemetry.raise_alarm("front", "second")
    told = json.loads(json.dumps(telemetry.to_dict()))
    assert told["pipelines"]["front"]["infer"]["count"] == 1
    assert (len(told["events"]), told["event_counts"]["suspicious"]) == (KEPT_EVENTS, KEPT_EVENTS + 5)
    assert told["alarm"] == "front: first"
