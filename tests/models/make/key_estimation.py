"""Attack block_shuffle's network with its weights, without its key: learn the permutation, then follow the gradient."""

import sys
from collections.abc import Sequence
from pathlib import Path

import data
import numpy as np
import torch
from keyed_models import BLOCK, TEST_KEY, network, shuffled
from torch import nn
from torch_nets import MEAN, STD, normalised, train

VALUES = 3 * BLOCK**2
EPS, STEPS, KNOWN, TRIED = 8 / 255, 20, 500, 200


def permutation(key: bytes) -> torch.Tensor:
    """Return the matrix that a key stands for."""
    order = np.argsort(np.frombuffer(key, ">u2"), kind="stable")
    return torch.eye(VALUES)[order].T


def scores(model: nn.Module, images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Answer for images N x 32 x 32 x 3 in [0, 1], each block times a matrix."""
    count, side = len(images), 32 // BLOCK
    blocks = images.reshape(count, side, BLOCK, side, BLOCK, 3).transpose(2, 3).reshape(count, side, side, VALUES)
    moved = (blocks @ matrix).reshape(count, side, side, BLOCK, BLOCK, 3).transpose(2, 3).reshape(count, 32, 32, 3)
    return model(((moved - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2))


def learned(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return a soft permutation under which the network names clean images rightly."""
    weights = torch.randn(VALUES, VALUES, requires_grad=True)
    optimiser = torch.optim.Adam([weights], 0.02)
    for _ in range(300):
        batch = torch.randint(0, len(images), (64,))
        noisy = images[batch] + 0.05 * torch.randn(64, *images.shape[1:])
        loss = nn.functional.cross_entropy(scores(model, noisy, torch.softmax(8 * weights, 0)), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.softmax(8 * weights.detach(), 0)


def attacked(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, matrices: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return what PGD finds within EPS through the sum of some permutations."""
    found = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        found = found.detach().requires_grad_()
        loss = sum(nn.functional.cross_entropy(scores(model, found, matrix), labels) for matrix in matrices)
        (slope,) = torch.autograd.grad(loss, found)
        found = (images + (found + EPS / 4 * slope.sign() - images).clamp(-EPS, EPS)).clamp(0, 1)
    return found.detach()


def main(folder: Path) -> None:
    """Print how many of the first 200 test images are right under the true key, clean and after each attack."""
    torch.manual_seed(data.SEED)
    images, labels = data.load(folder, "train", 20_000)
    tests, expected = (torch.tensor(part[:TRIED]) for part in data.load(folder, "t10k", TRIED))
    model, clean, true = (
        train(network(), normalised(shuffled(images, TEST_KEY)), labels),
        tests / 255,
        permutation(TEST_KEY),
    )
    known, named = torch.tensor(images[:KNOWN]) / 255, torch.tensor(labels[:KNOWN])
    guesses = [learned(model, known, named) for _ in range(6)]
    random = [permutation(np.random.default_rng(seed).bytes(2 * VALUES)) for seed in range(8)]
    ways = {
        "its own key": [true],
        "one random key": random[:1],
        "eight random keys": random,
        "no key": [torch.eye(VALUES)],
    }
    ways |= {f"learned permutation {i}": [guess] for i, guess in enumerate(guesses)} | {"all learned": guesses}
    print(f"clean: {(scores(model, clean, true).argmax(1) == expected).sum()} of {TRIED} right")
    for way, matrices in ways.items():
        pictures = (attacked(model, clean, expected, matrices) * 255).round() / 255
        print(f"PGD through {way}: {(scores(model, pictures, true).argmax(1) == expected).sum()} right", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
