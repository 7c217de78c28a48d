"""PyTorch interpreter: runs the primitives with gradients, for attackers who adapt. Imported on demand, with torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgemask.ops.numpy import NumpyOps
from edgemask.ops.protocol import Array, PadMode
from edgemask.spec import DType

Tensor: TypeAlias = torch.Tensor
Cut = Literal["exact", "straight-through", "smooth"]


class TorchOps:
    """Interpreter on tensors of N x sample; `cut` says what the cutting primitives do to what carries a gradient.

    exact: what NumPy does; the gradient ends there. straight-through: the same forward; backward round, floor and a
    cast to whole numbers pass the gradient as it is, a comparison that of its smooth form. smooth: the smooth form
    forward too, but for casts, which have none. What carries no gradient, as tables and entropy, is exact in all three.

    `temperature`: towards 0 the smooth forms become the exact ones; they flatten as it grows, round to the identity.
    A comparison's is in units of what it compares. A value with a gradient that is cast to whole numbers, or comes of
    a comparison, is held as float32.
    """

    def __init__(self, cut: Cut, temperature: float = 1.0) -> None:
        self._cut = cut
        self._temperature = temperature

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nothing is named here."""
        yield

    def dtype(self, x: Tensor) -> DType:
        return cast(DType, str(x.dtype).removeprefix("torch."))

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[1:])

    def const(self, value: Array) -> Tensor:
        return torch.tensor(value[np.newaxis])

    def cast(self, x: Tensor, dtype: DType) -> Tensor:
        if not self._softens(x) or dtype == "bool":
            return x.to(getattr(torch, dtype))
        return x if dtype == "float32" else _passing(x.trunc(), x)

    def add(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.add(x, _like(x, y))

    def sub(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.sub(x, _like(x, y))

    def mul(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.mul(x, _like(x, y))

    def div(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.div(x, _like(x, y))

    def min(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.minimum(x, _like(x, y))

    def max(self, x: Tensor, y: Tensor | float) -> Tensor:
        return torch.maximum(x, _like(x, y))

    def abs(self, x: Tensor) -> Tensor:
        return torch.abs(x)

    def exp(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def sqrt(self, x: Tensor) -> Tensor:
        # Its slope at 0 is infinite, and times a slope of 0 not a number: 0 stands in.
        return torch.where(x == 0, x, torch.sqrt(torch.where(x == 0, 1.0, x)))

    def round(self, x: Tensor) -> Tensor:
        return self._relaxed(x, torch.round(x), 0.0)

    def floor(self, x: Tensor) -> Tensor:
        return self._relaxed(x, torch.floor(x), 0.5)

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        return torch.clamp(x, low, high)

    def greater(self, x: Tensor, y: Tensor | float) -> Tensor:
        """A sigmoid when soft."""
        y = _like(x, y)
        if not self._softens(x, y):
            return torch.gt(x, y)
        return self._compared(torch.gt(x, y), torch.sigmoid((x - y) / self._temperature))

    def equal(self, x: Tensor, y: Tensor | float) -> Tensor:
        """A bell curve when soft."""
        y = _like(x, y)
        if not self._softens(x, y):
            return torch.eq(x, y)
        return self._compared(torch.eq(x, y), torch.exp(-torch.square((x - y) / self._temperature)))

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """A mixture when the condition is soft."""
        return torch.where(condition, x, y) if condition.dtype == torch.bool else condition * x + (1 - condition) * y

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(x.shape[0], *shape)

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        return x.permute(0, *(axis + 1 for axis in perm))

    def slice(self, x: Tensor, axis: int, begin: int, end: int, step: int = 1) -> Tensor:
        return x[(slice(None),) * (axis + 1) + (slice(begin, end, step),)]

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(xs), axis + 1)

    def pad(self, x: Tensor, widths: Sequence[tuple[int, int]], mode: PadMode = "constant") -> Tensor:
        if mode == "constant":
            return torch.nn.functional.pad(x, [width for pair in reversed(widths) for width in pair])
        for axis, pair in enumerate(widths):
            if any(pair):
                x = self.gather(x, np.pad(np.arange(x.shape[axis + 1]), pair, mode).tolist(), axis)
        return x

    def gather(self, x: Tensor, indices: Sequence[int], axis: int) -> Tensor:
        return torch.index_select(x, axis + 1, torch.tensor(list(indices)))

    def take(self, x: Tensor, indices: Tensor) -> Tensor:
        samples = torch.arange(len(indices))[:, None]
        return x.expand(len(indices), *x.shape[1:])[samples, indices.long()]

    def lookup(self, table: Array, indices: Tensor) -> Tensor:
        """Backward, for an index that carries a gradient, the slope between the rows on either side."""
        rows, at = torch.tensor(table), indices.long()
        if not self._softens(indices):
            return rows[at]
        slope = (rows[(at + 1).clamp(max=len(rows) - 1)] - rows[(at - 1).clamp(min=0)]) / 2
        ahead = (indices - indices.detach()).reshape(*indices.shape, *[1] * (rows.ndim - 1))
        return rows[at] + slope * ahead

    def batch_matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x, y)

    def matmul(self, x: Tensor, weights: NDArray[np.float32]) -> Tensor:
        return torch.matmul(x, torch.tensor(weights))

    def reduce_sum(self, x: Tensor, axis: int) -> Tensor:
        return torch.sum(x, axis + 1, keepdim=True)

    def reduce_max(self, x: Tensor, axis: int) -> Tensor:
        return torch.amax(x, axis + 1, keepdim=True)

    def resize(self, x: Tensor, height: int, width: int) -> Tensor:
        return _linear(_linear(x, 1, height), 2, width)

    def softmax(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    def top_k(self, x: Tensor, k: int, ordered: bool = True) -> tuple[Tensor, Tensor]:
        values, order = torch.sort(x, dim=-1, descending=True, stable=True)
        return values[..., :k], order[..., :k].to(torch.int32)

    def nms(
        self, boxes: Tensor, scores: Tensor, k: int, iou_threshold: float, score_threshold: float
    ) -> tuple[Tensor, Tensor]:
        arrays = boxes.detach().numpy(), scores.detach().numpy()
        indices, counts = NumpyOps().nms(*arrays, k, iou_threshold, score_threshold)
        return torch.tensor(indices), torch.tensor(counts)

    def _softens(self, *values: Tensor) -> bool:
        return self._cut != "exact" and any(value.requires_grad for value in values)

    def _relaxed(self, x: Tensor, exact: Tensor, shift: float) -> Tensor:
        """`exact` with a slope; the soft steps lie at half numbers, moved by `shift`."""
        if not self._softens(x):
            return exact
        return self._soft_round(x - shift) if self._cut == "smooth" else _passing(exact, x)

    def _compared(self, exact: Tensor, smooth: Tensor) -> Tensor:
        return smooth if self._cut == "smooth" else _passing(exact.to(torch.float32), smooth)

    def _soft_round(self, x: Tensor) -> Tensor:
        """Agustsson and Theis 2020, arXiv:2006.09952: a tanh for each step, with no jump between them."""
        sharpness = 1 / self._temperature
        base = torch.floor(x) + 0.5
        return base + torch.tanh(sharpness * (x - base)) / (2 * np.tanh(sharpness / 2))


def _passing(value: Tensor, slope: Tensor) -> Tensor:
    """`value`, to the bit, with the gradient of `slope`."""
    return value.detach() + (slope - slope.detach())


def _like(x: Tensor, y: Tensor | float) -> Tensor:
    return y if isinstance(y, torch.Tensor) else torch.tensor(y, dtype=x.dtype)


def _linear(x: Tensor, axis: int, size: int) -> Tensor:
    """Linear interpolation along one axis, half-pixel centres (ONNX Resize, opset 13)."""
    length = x.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.int64)
    share = torch.tensor((at - low).astype(np.float32)).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    left = torch.index_select(x, axis, torch.tensor(low))
    right = torch.index_select(x, axis, torch.tensor(np.minimum(low + 1, length - 1)))
    return left + (right - left) * share
