"""Fresh entropy for stochastic masks: 32 bytes a frame from the operating system, expanded by a named generator."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemask_runtime.errors import UserError, unknown

SEED_BYTES = 32
DEFAULT_GENERATOR = "shake128"

Bytes = npt.NDArray[np.uint8]


class NoEntropy(UserError):
    """The random source fails or repeats itself: nothing may be answered any more, this is an alarm."""


class SeedSource:
    """Draws seeds and refuses a source that repeats: replayed entropy would undo the mask unnoticed."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._last = b""

    def draw(self) -> bytes:
        """Return 32 fresh bytes; NoEntropy when the source fails or gives the same ones twice."""
        try:
            seed = self._source(SEED_BYTES)
        except OSError as error:
            raise NoEntropy(f"the operating system's random source fails: {error.strerror}") from error
        if len(seed) != SEED_BYTES or seed == self._last:
            raise NoEntropy(
                "the operating system's random source repeats itself", hint="run on a kernel with getrandom"
            )
        self._last = seed
        return seed


draw_seed = SeedSource().draw


def expand(seed: bytes, n: int, generator: str = DEFAULT_GENERATOR) -> Bytes:
    """Return `n` bytes, uint8 [n], a pure function of the 32-byte seed and the generator's name."""
    if generator not in GENERATORS:
        raise unknown("entropy generator", generator, GENERATORS)
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    return GENERATORS[generator](seed, n)


def _shake128(seed: bytes, n: int) -> Bytes:
    return np.frombuffer(hashlib.shake_128(seed).digest(n), np.uint8)


def _philox4x64(seed: bytes, n: int) -> Bytes:
    key, counter = np.frombuffer(seed[:16], "<u8"), np.frombuffer(seed[16:] + bytes(16), "<u8")
    bits: Any = np.random.Philox(key=key, counter=counter)
    words: npt.NDArray[np.uint64] = bits.random_raw(-(-n // 8))
    return words.astype("<u8", copy=False).view(np.uint8)[:n]


GENERATORS: dict[str, Callable[[bytes, int], Bytes]] = {"shake128": _shake128, "philox4x64": _philox4x64}
