"""Train the traffic-sign network on GTSRB at 32 x 32 and write it as ONNX, with fixed seeds.

`--defence`: one of the networks that docs/results.md compares, trained behind thermometer encoding or with k-WTA in
place of ReLU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from network import KWta, TrafficSigns
from torch import Tensor, nn

SEED = 43
EPOCHS, BATCH, RATE = 20, 128, 4e-3
SHIFT = 2
OPSET = 18
LEVELS, RATIO = 16, 0.2
DEFENCES = ("none", "thermometer", "k-wta")


def load(file: Path) -> tuple[Tensor, Tensor]:
    """A split's images [N, 3, 32, 32] as the network takes them, -1..1, and their classes."""
    with np.load(file, allow_pickle=False) as data:
        images, labels = data["x"], data["y"].astype(np.int64)
    planes = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    return (planes / 255 - 0.5) / 0.5, torch.from_numpy(labels)


def jittered(images: Tensor, source: torch.Generator) -> Tensor:
    """Each image at its own brightness and contrast, the whole batch shifted by up to two pixels."""
    down, right = (int(torch.randint(-SHIFT, SHIFT + 1, (), generator=source)) for _ in range(2))
    contrast, light = (torch.rand((len(images), 1, 1, 1), generator=source) for _ in range(2))
    padded = nn.functional.pad(images, (SHIFT,) * 4, mode="replicate")
    moved = padded[:, :, SHIFT + down : SHIFT + down + 32, SHIFT + right : SHIFT + right + 32]
    return ((0.7 + 0.6 * contrast) * moved + 0.4 * (light - 0.5)).clamp(-1, 1)


def encoded(images: Tensor, defence: str) -> Tensor:
    """The images, or edgemask's thermometer of them: channel c * LEVELS + k is 1 where c reaches threshold k."""
    if defence != "thermometer":
        return images
    thresholds = torch.arange(1, LEVELS + 1).mul(256).div(LEVELS + 1, rounding_mode="floor").reshape(-1, 1, 1)
    levels = (images * 127.5 + 127.5).round()
    return (levels.unsqueeze(2) >= thresholds).float().flatten(1, 2)


def train(images: Tensor, labels: Tensor, defence: str = "none") -> TrafficSigns:
    """The network after all epochs, ready to answer."""
    torch.manual_seed(SEED)
    source = torch.Generator().manual_seed(SEED)
    channels = 3 * LEVELS if defence == "thermometer" else 3
    net = TrafficSigns(channels, (lambda: KWta(RATIO)) if defence == "k-wta" else nn.ReLU)
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(EPOCHS):
        for picked in torch.randperm(len(images), generator=source).split(BATCH):
            loss = loss_of(net(encoded(jittered(images[picked], source), defence)), labels[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def right(net: nn.Module, images: Tensor, labels: Tensor, defence: str) -> int:
    """How many images are classified right."""
    parts = zip(images.split(500), labels.split(500), strict=True)
    with torch.no_grad():
        return sum(int((net(encoded(x, defence)).argmax(1) == y).sum()) for x, y in parts)


def write_onnx(net: nn.Module, example: Tensor, path: Path) -> None:
    """Input `image` [N, C, 32, 32], output `logits` [N, 43]; without the notes that name folders of this machine."""
    made = torch.onnx.export(
        net,
        (example,),
        input_names=["image"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamic_shapes={"image": {0: torch.export.Dim("N")}},
        dynamo=True,
        verbose=False,
    ).model_proto
    graph = made.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
    path.write_bytes(made.SerializeToString(deterministic=True))


def main() -> None:
    """Train, say how many test images come out right, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with gtsrb32_train.npz and gtsrb32_test.npz")
    parser.add_argument("--defence", choices=DEFENCES, default="none")
    parser.add_argument("-o", "--out", type=Path, default=Path("build/traffic-signs"), help="folder to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    net = train(*load(asked.data / "gtsrb32_train.npz"), asked.defence)
    images, labels = load(asked.data / "gtsrb32_test.npz")
    parameters = sum(weight.numel() for weight in net.parameters())
    print(f"{right(net, images, labels, asked.defence)} of {len(labels)} test images right; {parameters} parameters")
    file = asked.out / f"{'traffic-signs' if asked.defence == 'none' else asked.defence}.onnx"
    asked.out.mkdir(parents=True, exist_ok=True)
    write_onnx(net.with_relu(), encoded(images[:2], asked.defence), file)
    print(f"{file}, after {time.process_time() - begun:.0f} s of one processor")


if __name__ == "__main__":
    main()
