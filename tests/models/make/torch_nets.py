"""The PyTorch networks: their inputs, their layers and their training."""

import data
import numpy as np
import torch
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVELS = 16
EPOCHS = 4


def normalised(images: np.ndarray) -> np.ndarray:
    """Return (x / 255 - MEAN) / STD as float32 NCHW."""
    values = (images / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def thermometer(images: np.ndarray) -> np.ndarray:
    """Return float32 NCHW with channel c * LEVELS + k = (x_c >= (k + 1) * 256 // (LEVELS + 1))."""
    thresholds = np.arange(1, LEVELS + 1) * 256 // (LEVELS + 1)
    planes = images.transpose(0, 3, 1, 2)[:, :, None] >= thresholds[:, None, None]
    return planes.reshape(len(images), -1, *images.shape[1:3]).astype(np.float32)


def network(channels: int) -> nn.Sequential:
    """Return three strided convolutions and one linear layer."""
    layers: list[nn.Module] = []
    for into, out in ((channels, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, len(data.NAMES)))


class TwoInputs(nn.Module):
    """A network of two images, which a chain for one camera must refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(6)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Classify both images together."""
        return self.body(torch.cat([left, right], dim=1))


def train(model: nn.Module, inputs: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Train with Adam and return the network in inference mode."""
    steps = EPOCHS * len(inputs) // 64
    optimiser = torch.optim.Adam(model.parameters(), 1e-7)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    order = np.random.default_rng(data.SEED)
    batches = np.concatenate([order.permutation(len(inputs)) for _ in range(EPOCHS)])[: steps * 64].reshape(-1, 64)
    for batch in batches:
        loss = nn.functional.cross_entropy(model(torch.tensor(inputs[batch])), torch.tensor(labels[batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()
