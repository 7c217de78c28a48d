"""Write torch_nchw, torch_nchw_opset11, qdq, thermometer and two_inputs as ONNX."""

import sys
from pathlib import Path

import data
import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch_nets import LEVELS, TwoInputs, network, normalised, thermometer, train

OUT = Path(__file__).parent.parent


def export(model: nn.Module, name: str, inputs: dict[str, int]) -> Path:
    """Write with the torch.export-based exporter: opset 18, any batch."""
    batch = torch.export.Dim("N")
    arguments = tuple(torch.zeros(2, channels, 32, 32) for channels in inputs.values())
    program = torch.onnx.export(
        model.eval(),
        arguments,
        dynamo=True,
        opset_version=18,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=tuple({0: batch} for _ in inputs),
    )
    path = OUT / f"{name}.onnx"
    onnx.save(without_traces(program.model_proto), path)
    return path


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: they hold stack traces with local paths, and double the file."""
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def export_opset11(model: nn.Module, name: str) -> Path:
    """Write with the TorchScript-based exporter: opset 11, batch 1, probabilities."""
    path = OUT / f"{name}.onnx"
    torch.onnx.export(
        nn.Sequential(model, nn.Softmax(dim=1)).eval(),
        (torch.zeros(1, 3, 32, 32),),
        path,
        dynamo=False,
        opset_version=11,
        input_names=["image"],
        output_names=["probabilities"],
    )
    return path


class Calibration(CalibrationDataReader):
    """Hands the quantiser batches of real images."""

    def __init__(self, inputs: np.ndarray) -> None:
        self.batches = iter(np.split(inputs, len(inputs) // 32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, or nothing."""
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def quantise(source: Path, name: str, inputs: np.ndarray) -> Path:
    """Write the QDQ form: uint8 activations, int8 weights per channel."""
    path = OUT / f"{name}.onnx"
    quantize_static(
        source,
        path,
        Calibration(inputs),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return path


def report(path: Path, inputs: np.ndarray, labels: np.ndarray) -> None:
    """Print how many test images the written file gets right, one by one."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = np.array([session.run(None, {"image": one[None]})[0].argmax() for one in inputs])
    right = (answers == labels).sum()
    print(f"{path.name}: {right} of {len(labels)} right, {path.stat().st_size} bytes")


def main(folder: Path) -> None:
    """Train on the first 20,000 training images and report on the first 2,000 test images."""
    torch.manual_seed(data.SEED)
    images, labels = data.load(folder, "train", 20_000)
    test_images, test_labels = data.load(folder, "t10k", 2_000)
    model = train(network(3), normalised(images), labels)
    float_path = export(model, "torch_nchw", {"image": 3})
    paths = [
        float_path,
        export_opset11(model, "torch_nchw_opset11"),
        quantise(float_path, "qdq", normalised(images[:512])),
    ]
    for path in paths:
        report(path, normalised(test_images), test_labels)
    encoded = train(network(3 * LEVELS), thermometer(images), labels)
    report(export(encoded, "thermometer", {"image": 3 * LEVELS}), thermometer(test_images), test_labels)
    export(TwoInputs(), "two_inputs", {"left": 3, "right": 3})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
