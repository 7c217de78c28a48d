"""Pixel formats: how a camera's frame lies in memory, and RGB pixels in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgemask_runtime.strict_json import between

Pixels = npt.NDArray[np.uint8]
Colour = Literal["gray", "rgb", "bgr", "rgba", "bgra", "nv12", "i420", "yuyv"]
Matrix = Literal["bt601", "bt709"]
Range = Literal["limited", "full"]

MAX_SIDE = 16384
MAX_STRIDE = 1 << 17
CHANNELS: dict[str, int] = {"gray": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
YUV: dict[str, tuple[int, int]] = {"nv12": (2, 2), "i420": (2, 2), "yuyv": (1, 2)}
"""Rows and columns of pixels that share one pair of colour differences."""
LUMA: dict[Matrix, tuple[float, float, float]] = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}
"""Shares of red, green and blue in the luma (ITU-R BT.601-7 and BT.709-6)."""


class Span(NamedTuple):
    """Where a range puts black, and how many steps it has from black to white and from one end of a difference on."""

    black: int
    luma: int
    chroma: int


SPANS: dict[Range, Span] = {"limited": Span(16, 219, 224), "full": Span(0, 255, 255)}


@dataclass(frozen=True)
class Format:
    """What one frame is. `stride`: bytes from one row to the next, None where rows have no padding.

    `matrix` and `range` say how nv12, i420 and yuyv are coded; None means BT.601 and limited, as OpenCV takes them.
    """

    width: int = field(metadata=between(1, MAX_SIDE))
    height: int = field(metadata=between(1, MAX_SIDE))
    colour: Colour
    stride: int | None = field(default=None, metadata=between(1, MAX_STRIDE))
    matrix: Matrix | None = None
    range: Range | None = None

    @property
    def raw(self) -> bool:
        """Whether frames are rows of bytes, not pixels of channels: YUV, and whatever has padded rows."""
        return self.colour in YUV or self.stride not in (None, self.row_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of pixels, without padding; of the first plane, where there are several."""
        if self.colour in YUV:
            return self.width * (2 if self.colour == "yuyv" else 1)
        return self.width * CHANNELS[self.colour]

    @property
    def shape(self) -> tuple[int, ...]:
        """One frame's shape: height, width, channels; or, raw, rows and bytes a row."""
        if not self.raw:
            return self.height, self.width, CHANNELS[self.colour]
        rows = self.height * 3 // 2 if self.colour in ("nv12", "i420") else self.height
        return rows, self.stride or self.row_bytes

    def settled(self) -> Format:
        """The same format, stated in the one way that is compared and recorded."""
        stride = None if self.stride == self.row_bytes else self.stride
        if self.colour not in YUV:
            return Format(self.width, self.height, self.colour, stride)
        return Format(self.width, self.height, self.colour, stride, self.matrix or "bt601", self.range or "limited")


def problems(given: Format) -> Iterator[tuple[str, str]]:
    """What no field can know alone: the field that is wrong, and what it may be."""
    colour = given.colour
    rows, columns = YUV.get(colour, (1, 1))
    for name, size, step in (("width", given.width, columns), ("height", given.height, rows)):
        if size % step:
            yield name, f"an even number for {colour}"
    if given.stride is not None and given.stride < given.row_bytes:
        yield "stride", f"{given.row_bytes} or more for {colour} of width {given.width}"
    elif given.stride is not None and given.stride % 2 and colour == "i420":
        yield "stride", "an even number for i420: its half is the stride of the other planes"
    for name in ("matrix", "range"):
        if colour not in YUV and getattr(given, name) is not None:
            yield name, f"only for {', '.join(YUV)}"


def encoded(rgb: Pixels, wanted: Format) -> Pixels:
    """RGB pixels [height, width, 3] as the raw YUV buffer of `wanted`; padding is 0.

    Each pair of differences is that of the mean colour of the pixels that share it; all in whole numbers of 2**-16.
    """
    whole = wanted.settled()
    rows, columns = YUV[whole.colour]
    table, offsets = _to_yuv(whole)
    luma = _coded(rgb.astype(np.int32), table[:1], offsets[:1], 1)[..., 0]
    blocks = rgb.reshape(whole.height // rows, rows, whole.width // columns, columns, 3)
    chroma = _coded(blocks.sum((1, 3), dtype=np.int32), table[1:], offsets[1:], rows * columns)
    return assembled(_planes(luma, chroma, whole.colour), whole)


def assembled(planes: Sequence[Pixels], wanted: Format) -> Pixels:
    """Planes, each rows of bytes without padding, as one raw buffer; padding is 0."""
    buffer = np.zeros(wanted.shape, np.uint8)
    stride, height = buffer.shape[1], wanted.height
    parts = [buffer[:height], buffer[height:]]
    if wanted.colour == "i420":
        parts = [buffer[:height], *buffer[height:].reshape(2, height // 2, stride // 2)]
    for part, plane in zip(parts, planes, strict=False):
        part[:, : plane.shape[1]] = plane
    return buffer


def plane_rows(buffer: Pixels, given: Format) -> list[Pixels]:
    """The planes of a frame in any format, each as rows of bytes without padding: views."""
    rows, height, width = buffer.reshape(len(buffer), -1), given.height, given.width
    if given.colour not in ("nv12", "i420"):
        return [rows[:, : given.row_bytes]]
    luma, chroma = rows[:height, :width], rows[height:]
    if given.colour == "nv12":
        return [luma, chroma[:, :width]]
    tints = chroma.reshape(2, height // 2, -1)[..., : width // 2]
    return [luma, tints[0], tints[1]]


def pixels_of(buffer: Pixels, camera: Format) -> Pixels:
    """The pixels of a frame that is no YUV, height x width x channels, without padding."""
    return buffer[:, : camera.row_bytes].reshape(camera.height, camera.width, -1) if camera.raw else buffer


def planes_of(buffer: Pixels, camera: Format) -> tuple[Pixels, Pixels]:
    """Luma, height x width x 1, and the differences at their own fewer pixels, x 2, of a raw YUV buffer."""
    height, width = camera.height, camera.width
    if camera.colour == "yuyv":
        groups = buffer[:, : 2 * width].reshape(height, width // 2, 4)
        return groups[..., ::2].reshape(height, width, 1), groups[..., 1::2]
    luma = buffer[:height, :width, np.newaxis]
    if camera.colour == "nv12":
        return luma, buffer[height:, :width].reshape(height // 2, width // 2, 2)
    planes = buffer[height:].reshape(2, height // 2, -1)[..., : width // 2]
    return luma, planes.transpose(1, 2, 0)


def colours_of(picture: Pixels, camera: Format) -> Pixels:
    """RGB of a picture whose channels are Y, U and V as this camera codes them."""
    whole = camera.settled()
    table, offsets = _to_yuv(whole)
    inverse = np.linalg.inv(table / 2**16).T.astype(np.float32)
    rgb: Pixels = np.clip(np.rint((picture - offsets.astype(np.float32)) @ inverse), 0, 255).astype(np.uint8)
    return rgb


def _to_yuv(whole: Format) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The matrix from RGB to YUV in 2**-16 and its offsets."""
    span = SPANS[whole.range or "limited"]
    shares = np.array(LUMA[whole.matrix or "bt601"])
    blue = (np.array([0, 0, 1.0]) - shares) / (2 * (1 - shares[2]))
    red = (np.array([1.0, 0, 0]) - shares) / (2 * (1 - shares[0]))
    table = np.stack([shares * span.luma, blue * span.chroma, red * span.chroma]) / 255
    return np.rint(table * 2**16).astype(np.int32), np.array([span.black, 128, 128], np.int32)


def _coded(
    colours: npt.NDArray[np.int32], table: npt.NDArray[np.int32], offsets: npt.NDArray[np.int32], count: int
) -> Pixels:
    """Sums of `count` colours each, in YUV."""
    unit = count << 16
    total = colours @ table.T + offsets * unit + unit // 2
    coded: Pixels = np.clip(total // unit, 0, 255).astype(np.uint8)
    return coded


def _planes(luma: Pixels, chroma: Pixels, colour: Colour) -> list[Pixels]:
    if colour == "yuyv":
        pairs = np.concatenate([luma.reshape(*chroma.shape[:2], 2), chroma], 2)[..., [0, 2, 1, 3]]
        return [pairs.reshape(len(luma), -1)]
    return [luma, *((chroma[..., 0], chroma[..., 1]) if colour == "i420" else [chroma.reshape(len(chroma), -1)])]
