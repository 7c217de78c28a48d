"""The classifier: three convolutions and one that sees all of the remaining 4 x 4 positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 43


class TrafficSigns(nn.Module):
    """Planes [N, channels, 32, 32] to logits [N, 43]; 66,211 parameters for three channels."""

    def __init__(self, channels: int = 3, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(channels, 24, 5, 2, activation()),
            *_block(24, 48, 3, 2, activation()),
            *_block(48, 48, 3, 1, activation()),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            nn.Conv2d(48, CLASSES, 4),
            nn.Flatten(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        return self.layers(image)

    def with_relu(self) -> TrafficSigns:
        """The same weights with ReLUs, for a recipe whose rewrite puts another activation in their place."""
        for at, layer in enumerate(self.layers):
            if isinstance(layer, KWta):
                self.layers[at] = nn.ReLU()
        return self


class KWta(nn.Module):
    """Keeps the largest `ratio` of a layer's activations (Xiao, Zhong and Zheng 2020, arXiv:1905.10510)."""

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self._ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        """The winners, and 0 elsewhere."""
        flat = x.flatten(1)
        last = flat.topk(max(1, math.floor(self._ratio * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= last, flat, 0).reshape(x.shape)


def _block(n: int, m: int, kernel: int, stride: int, activation: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(n, m, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(m), activation]
