"""What an engine says of its inputs and outputs, and the check of what it is fed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgemask_runtime.errors import UserError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class EngineInfo:
    """The engine in use, the version that is installed, and the provider that runs the graph: cpu, xnnpack, cuda ..."""

    name: str
    version: str
    provider: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class TensorInfo:
    """A named tensor: numpy's dtype name, the shape with None for a free axis, (scale, zero point) if quantised."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantisation: tuple[float, int] | None = None

    def __str__(self) -> str:
        axes = ", ".join("N" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"

    def takes(self, array: Array) -> bool:
        """Say whether the array has this dtype and a shape that fits."""
        return array.dtype.name == self.dtype and fits(array.shape, self.shape)


def fits(shape: tuple[int, ...], pattern: tuple[int | None, ...]) -> bool:
    """Say whether every axis has the size asked, None being any."""
    return len(shape) == len(pattern) and all(want in (None, have) for have, want in zip(shape, pattern, strict=True))


def plain(array: Array) -> list[Any]:
    """Return the values, flat, as JSON can hold them: null for what is not finite."""
    values: list[Any] = array.ravel().tolist()
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def check_feeds(inputs: tuple[TensorInfo, ...], feeds: Mapping[str, Array]) -> None:
    """Raise a UserError that says what is expected unless the feeds are exactly the inputs."""
    expected = "; ".join(map(str, inputs))
    names = {info.name for info in inputs}
    if feeds.keys() != names:
        raise UserError(f"fed with {sorted(feeds)}, the model takes {sorted(names)}", hint=f"expected: {expected}")
    for info in inputs:
        if not info.takes(feeds[info.name]):
            got = feeds[info.name]
            raise UserError(f"input {info.name!r} is {got.dtype.name} {list(got.shape)}", hint=f"expected: {expected}")
