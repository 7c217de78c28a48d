"""Fresh entropy for stochastic masks: 32 bytes a frame from the operating system, expanded by a named generator."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgemask_runtime.errors import EXIT_ALARM, UserError, one_line, unknown

SEED_BYTES = 32
REMEMBERED = 1024
HINT = "run on a kernel with getrandom, and not a copy of a machine that was suspended"
DEFAULT_GENERATOR = "shake128"

Bytes = npt.NDArray[np.uint8]


class NoEntropy(UserError):
    """The random source fails or repeats itself: nothing may be answered any more, this is an alarm."""

    exit_code: ClassVar[int] = EXIT_ALARM


class SeedSource:
    """Draws seeds and refuses a source that repeats itself: replayed entropy would undo the mask unnoticed."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._latest: deque[bytes] = deque(maxlen=REMEMBERED)
        self._seen: set[bytes] = set()
        self._entered = Lock()

    def draw(self) -> bytes:
        """Return 32 fresh bytes; NoEntropy when the source gives one of the latest again, or too little."""
        try:
            seed = self._source(SEED_BYTES)
        except (OSError, NotImplementedError) as error:
            raise NoEntropy(f"the operating system's random source fails: {one_line(error)}", HINT) from error
        if len(seed) != SEED_BYTES:
            raise NoEntropy("the operating system's random source gives too little", HINT)
        with self._entered:
            self._remember(seed)
        return seed

    def _remember(self, seed: bytes) -> None:
        if seed in self._seen:
            raise NoEntropy("the operating system's random source repeats itself", HINT)
        if len(self._latest) == REMEMBERED:
            self._seen.discard(self._latest[0])
        self._latest.append(seed)
        self._seen.add(seed)


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
