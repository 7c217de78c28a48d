"""Which of a camera's formats is taken: the graph's own first, then what costs least to make it of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Colour, Format

COLOURS: dict[str, Colour] = {
    "GREY": "gray",
    "YUYV": "yuyv",
    "NV12": "nv12",
    "YU12": "i420",
    "RGB3": "rgb",
    "BGR3": "bgr",
    "AB24": "rgba",
    "XB24": "rgba",
    "AR24": "bgra",
    "XR24": "bgra",
}
"""What Video4Linux2's four letters are among the graph's colours."""
JPEGS = ("MJPG", "JPEG")
SHRINKS = (2, 4, 8)
# A camera's 30 is often 29.97.
ALMOST = 0.98


@dataclass(frozen=True)
class Mode:
    """A format, a size and the paces in it (empty: not told; two may be the ends of a range)."""

    fourcc: str
    width: int
    height: int
    rates: tuple[float, ...] = ()

    def __str__(self) -> str:
        paces = f" {self.rates[-1]:g} fps" if self.rates else ""
        return f"{self.fourcc} {self.width}x{self.height}{paces}"


class Cost(NamedTuple):
    """What taking a mode costs; the smallest is taken."""

    too_slow: bool
    size: int
    colour: int
    pixels: int
    slowness: float


def best(modes: Sequence[Mode], frame: Format, fps: float | None = None) -> Mode:
    """The mode to take; UserError that lists what the camera has when none can be used."""
    usable = [mode for mode in modes if mode.fourcc in COLOURS or mode.fourcc in JPEGS]
    if not usable:
        given = listed({mode.fourcc for mode in modes}) or "none"
        raise UserError(f"none of the camera's formats ({given}) can be read", f"it takes {listed((*COLOURS, *JPEGS))}")
    return min(usable, key=lambda mode: cost(mode, frame, fps))


def cost(mode: Mode, frame: Format, fps: float | None) -> Cost:
    """Pace first, if one is wanted; then the graph's size, then its colours, then what has fewer pixels."""
    fastest = max(mode.rates, default=0.0)
    too_slow = bool(fps and mode.rates and fastest < fps * ALMOST)
    return Cost(too_slow, _size(mode, frame), _colour(mode, frame), mode.width * mode.height, -fastest)


def remark(mode: Mode, frame: Format) -> str:
    """What is done to the mode's frames before the graph takes them; empty for nothing."""
    parts = [] if COLOURS.get(mode.fourcc) == frame.colour else [f"{mode.fourcc} made {frame.colour}"]
    if _size(mode, frame):
        parts.append(f"{mode.width}x{mode.height} resized to {frame.width}x{frame.height}")
    return ", ".join(parts)


def listed(words: Iterable[str]) -> str:
    """The words in order, with commas."""
    return ", ".join(sorted(words))


def _size(mode: Mode, frame: Format) -> int:
    if (mode.width, mode.height) == (frame.width, frame.height):
        return 0
    shrunk = {(frame.width * factor, frame.height * factor) for factor in SHRINKS}
    if mode.fourcc in JPEGS and (mode.width, mode.height) in shrunk:
        return 1
    return 2 if mode.width >= frame.width and mode.height >= frame.height else 3


def _colour(mode: Mode, frame: Format) -> int:
    if COLOURS.get(mode.fourcc) == frame.colour:
        return 0
    return 1 if mode.fourcc in JPEGS else 2
