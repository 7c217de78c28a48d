"""Whole numbers from entropy: exact, even and the same on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from edgemask.ops.draws import DRAW_BYTES, draw_below, one_hot
from edgemask_runtime.entropy import expand

from ..harness import INTERPRETERS, Array, on_engine, reference

LIMITS = (1, 2, 3, 7, 17, 255, 256, 331, 4097, 65535, 65536)
WORDS = np.array([0, 1, 255, 256, 65535, 65536, 2**23 - 1, 2**23, 2**24 - 256, 2**24 - 1])


def planes(words: Array) -> Array:
    """The bytes of 24-bit words as one sample of entropy: all lowest bytes first."""
    return np.concatenate([words >> 8 * i & 255 for i in range(DRAW_BYTES)]).astype(np.uint8)[None]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_draw_is_the_words_share_of_the_limit(limit: int, interpreter: str) -> None:
    words = np.concatenate([WORDS, -(-np.arange(limit)[:200] * 2**24 // limit), np.arange(1, 50) * 2**24 // 50])
    for given in (limit, np.full((1, 1), limit, np.float32)):
        inputs = [planes(words)] if isinstance(given, int) else [planes(words), given]

        def build(ops: Any, entropy: Any, *limits: Any) -> Any:
            return draw_below(ops, entropy, limits[0] if limits else float(limit))

        (drawn,) = on_engine(interpreter, build, inputs)
        np.testing.assert_array_equal(drawn[0], words * limit >> 24)


@pytest.mark.parametrize("limit", [2, 5, 29, 256, 331])
def test_draws_are_even(limit: int) -> None:
    entropy = expand(bytes(range(32)), 60_000 * DRAW_BYTES)[None]
    (drawn,) = reference(lambda ops, x: draw_below(ops, x, float(limit)), [entropy])
    counts = np.bincount(drawn[0].astype(int), minlength=limit)
    assert len(counts) == limit
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_one_hot_rows_pick(interpreter: str) -> None:
    index = np.float32([[[0], [4], [2]]])
    (rows,) = on_engine(interpreter, lambda ops, x: one_hot(ops, x, 5), [index])
    np.testing.assert_array_equal(rows[0], np.eye(5)[[0, 4, 2]])
