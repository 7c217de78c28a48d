"""Train one network with k-winners-take-all in place of its ReLUs, and write it with ReLUs as k_wta.onnx."""

import sys
from pathlib import Path

import data
import torch
from torch import nn
from torch_models import export
from torch_nets import network, normalised, train

RATIO = 0.2


class KWta(nn.Module):
    """Keeps the largest RATIO of each sample's activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero what is below the k-th largest value of the whole layer."""
        flat = x.flatten(1)
        last = flat.topk(max(1, int(RATIO * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= last, flat, 0).view_as(x)


def swapped(layers: nn.Sequential, old: type[nn.Module], new: type[nn.Module]) -> nn.Sequential:
    """Return the layers with one kind of activation in place of another."""
    return nn.Sequential(*(new() if isinstance(layer, old) else layer for layer in layers))


def main(folder: Path) -> None:
    """Train on the first 20,000 training images and report on the first 2,000 test images, with k-WTA and without."""
    torch.manual_seed(data.SEED)
    images, labels = data.load(folder, "train", 20_000)
    test_images, test_labels = data.load(folder, "t10k", 2_000)
    trained = train(swapped(network(3), nn.ReLU, KWta), normalised(images), labels)
    plain = swapped(trained, KWta, nn.ReLU).eval()
    for name, model in (("k-wta", trained), ("relu", plain)):
        with torch.no_grad():
            right = (model(torch.tensor(normalised(test_images))).argmax(1).numpy() == test_labels).sum()
        print(f"{name}: {right} of {len(test_labels)} right")
    export(plain, "k_wta", {"image": 3})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
