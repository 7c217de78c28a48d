"""Train one network behind block-shuffle with a test key and write it as block_shuffle.onnx."""

import hashlib
import sys
from pathlib import Path

import data
import numpy as np
import torch
from torch import nn
from torch_models import export, report
from torch_nets import normalised, train

BLOCK = 4
TEST_KEY = hashlib.shake_128(b"block_shuffle.onnx: a test key, no secret").digest(2 * 3 * BLOCK**2)


def shuffled(images: np.ndarray, key: bytes) -> np.ndarray:
    """Permute the values of every 4 x 4 block alike: the value of position i moves to the rank of the key's word i."""
    order = np.argsort(np.frombuffer(key, ">u2"), kind="stable")
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels).transpose(0, 1, 3, 2, 4, 5)
    moved = blocks.reshape(*blocks.shape[:3], -1)[..., order].reshape(blocks.shape)
    return moved.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)


def network() -> nn.Sequential:
    """Return a network whose first layer sees whole blocks, as shuffled neighbours mean nothing."""
    layers: list[nn.Module] = []
    for into, out, side, stride in ((3, 28, BLOCK, BLOCK), (28, 28, 3, 1), (28, 28, 3, 2)):
        layers += [nn.Conv2d(into, out, side, stride, padding=side % 2, bias=False)]
        layers += [nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(28 * 4 * 4, len(data.NAMES)))


def main(folder: Path) -> None:
    """Train on the first 20,000 training images and report on the first 2,000 test images."""
    torch.manual_seed(data.SEED)
    images, labels = data.load(folder, "train", 20_000)
    test_images, test_labels = data.load(folder, "t10k", 2_000)
    path = export(train(network(), normalised(shuffled(images, TEST_KEY)), labels), "block_shuffle", {"image": 3})
    for key in (TEST_KEY, TEST_KEY[::-1]):
        report(path, normalised(shuffled(test_images, key)), test_labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
