"""A stream's own clock on ours: when each of its frames was captured, though it arrives late and unevenly."""

from __future__ import annotations

from edgemask_runtime.frames import NS_PER_S

DRIFT = 200e-6
"""How fast two quartz clocks may part: twice 100 parts in a million."""
JUMP_S = 10.0


class StreamClock:
    """Takes the quickest frame so far as the one that was not delayed, and dates all others by it.

    What every frame has in common - exposure, coding, the network's least delay - cannot be seen from here. What a
    frame takes beyond that can: frames that queue up somewhere grow older, and keep their order and distance. The
    quickest frame is forgotten no faster than clocks drift; a stream whose clock jumps against ours is dated anew.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None
        self._last_s = (0.0, 0.0)

    def captured_ns(self, stream_s: float, arrived_ns: int) -> int:
        """The monotonic time of capture of the frame with this time in the stream."""
        arrived_s = arrived_ns / NS_PER_S
        passed_s = arrived_s - self._last_s[1]
        jumped = abs(stream_s - self._last_s[0] - passed_s) > JUMP_S
        ahead_s = arrived_s - stream_s
        if self._ahead_s is not None and not jumped:
            ahead_s = min(ahead_s, self._ahead_s + DRIFT * passed_s)
        self._ahead_s, self._last_s = ahead_s, (stream_s, arrived_s)
        return min(arrived_ns, round((stream_s + ahead_s) * NS_PER_S))
