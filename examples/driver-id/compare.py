"""Run driver-id.onnx and driver-id.tflite on the test faces: accuracy of each, and how far apart their logits lie."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from dataset import load
from faces import default_cache


def onnx_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the ONNX file's logits for images [N, H, W, C], in one batch."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.transpose(0, 3, 1, 2)})[0]


def tflite_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the TFLite file's logits for images [N, H, W, C], one by one."""
    run = Interpreter(str(path)).get_signature_runner()
    return np.concatenate([run(image=image[None])["logits"] for image in images])


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=default_cache())
    images, labels = load("test", parser.parse_args().cache)
    here = Path(__file__).parent
    first = onnx_logits(here / "driver-id.onnx", images)
    second = tflite_logits(here / "driver-id.tflite", images)
    for name, logits in {"onnx": first, "tflite": second}.items():
        print(f"{name}: {(logits.argmax(axis=1) == labels).sum()} of {len(labels)} right")
    print(f"largest difference of logits: {np.abs(first - second).max():.2e}")
    print(f"same top-1: {(first.argmax(axis=1) == second.argmax(axis=1)).sum()} of {len(labels)}")


if __name__ == "__main__":
    main()
