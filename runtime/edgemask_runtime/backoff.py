"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from random import SystemRandom

FIRST_S, MOST_S = 0.25, 30.0
_random = SystemRandom()


class Backoff:
    """Delays that double from `first_s` to `most_s`, each shortened by up to a half at random, until `reset`.

    Why at random: parts that failed together would else all knock again at the same moment.
    """

    def __init__(self, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    def delay_s(self) -> float:
        """The delay before the next attempt."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return delay_s * _random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._next_s = self._first_s
