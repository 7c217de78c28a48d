from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import cycle

import numpy as np
import pytest
from scipy import stats

from edgemask_runtime.entropy import GENERATORS, REMEMBERED, SEED_BYTES, NoEntropy, SeedSource, draw_seed, expand
from edgemask_runtime.errors import UserError

SEED = bytes(range(SEED_BYTES))
MASK = (1 << 64) - 1


def philox4x64(counter: int, key: int) -> bytes:
    """Philox4x64-10 by the book (Salmon et al. 2011), one block."""
    words = [counter >> 64 * index & MASK for index in range(4)]
    low, high = key & MASK, key >> 64
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [second >> 64 ^ words[1] ^ low, second & MASK, first >> 64 ^ words[3] ^ high, first & MASK]
        low, high = low + 0x9E3779B97F4A7C15 & MASK, high + 0xBB67AE8584CAA73B & MASK
    return b"".join(word.to_bytes(8, "little") for word in words)


def test_the_oracle_gives_random123s_known_answer() -> None:
    assert philox4x64(0, 0)[:8] == (0x16554D9ECA36314C).to_bytes(8, "little")
    assert philox4x64(2**256 - 1, 2**128 - 1)[:8] == (0x87B092C3013FE90B).to_bytes(8, "little")


def test_philox_is_philox_keyed_with_the_seed() -> None:
    key, counter = int.from_bytes(SEED[:16], "little"), int.from_bytes(SEED[16:], "little")
    # numpy counts up before it draws.
    expected = b"".join(philox4x64(counter + block, key) for block in (1, 2, 3))
    assert expand(SEED, 90, "philox4x64").tobytes() == expected[:90]
    assert expand(SEED, 8, "philox4x64").tobytes().hex() == "36e814864d2b972e"


def test_shake128_is_hashlibs() -> None:
    assert expand(SEED, 1000, "shake128").tobytes() == hashlib.shake_128(SEED).digest(1000)
    assert hashlib.shake_128(b"").hexdigest(16) == "7f9c2ba4e88f827d616045507605853e"


@pytest.mark.parametrize("generator", sorted(GENERATORS))
def test_the_bytes_are_uniform_and_depend_on_the_seed(generator: str) -> None:
    drawn = expand(SEED, 602_112, generator)
    assert (drawn.shape, drawn.dtype) == ((602_112,), np.uint8)
    assert stats.chisquare(np.bincount(drawn, minlength=256)).pvalue > 0.001
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.005
    other = expand(SEED[::-1], 602_112, generator)
    assert abs((drawn == other).mean() - 1 / 256) < 0.001
    assert np.array_equal(drawn[:1001], expand(SEED, 1001, generator))


def test_seeds_are_fresh() -> None:
    seeds = {draw_seed() for _ in range(100)}
    assert {len(seed) for seed in seeds} == {SEED_BYTES}
    assert len(seeds) == 100


def source(seeds: Iterable[bytes]) -> SeedSource:
    given = iter(seeds)
    return SeedSource(lambda _: next(given))


@pytest.mark.parametrize("period", [1, 2, 7, REMEMBERED])
def test_a_source_that_repeats_is_refused(period: int) -> None:
    repeating = source(number.to_bytes(SEED_BYTES, "big") for number in cycle(range(period)))
    for _ in range(period):
        repeating.draw()
    with pytest.raises(NoEntropy, match="repeats"):
        repeating.draw()


def test_a_source_that_gives_too_little_or_fails_is_refused() -> None:
    def broken(_: int) -> bytes:
        raise OSError("no such device")

    with pytest.raises(NoEntropy, match="gives too little"):
        source([b"short"]).draw()
    with pytest.raises(NoEntropy, match="fails: no such device"):
        SeedSource(broken).draw()


def test_what_is_remembered_is_bounded() -> None:
    fresh = source(number.to_bytes(SEED_BYTES, "big") for number in range(3 * REMEMBERED))
    for _ in range(3 * REMEMBERED):
        fresh.draw()
    assert len(fresh._seen) == len(fresh._latest) == REMEMBERED


def test_what_expand_refuses() -> None:
    with pytest.raises(UserError) as caught:
        expand(SEED, 1, "shake12")
    assert caught.value.hint == "did you mean 'shake128'? allowed: philox4x64, shake128"
    with pytest.raises(ValueError, match="32 bytes"):
        expand(b"", 1, "shake128")
