"""A tiny ONNX classifier: frame (+ entropy) -> softmax(pixels @ weights), with a free batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def classifier(weights: np.ndarray[Any, Any], shape: tuple[int, int, int], *, noisy: bool) -> bytes:
    """Serialise the classifier of `weights` [classes, pixels]."""
    pixels = int(np.prod(shape))
    inputs = [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["N", *shape])]
    nodes = [helper.make_node("Cast", ["frame"], ["frame_f32"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Flatten", ["frame_f32"], ["flat"], axis=1))
    if noisy:
        inputs.append(helper.make_tensor_value_info("entropy", TensorProto.UINT8, ["N", pixels]))
        nodes.append(helper.make_node("Cast", ["entropy"], ["entropy_f32"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", ["flat", "entropy_f32"], ["noisy"]))
    nodes.append(helper.make_node("MatMul", [nodes[-1].output[0], "weights"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    return _serialise(nodes, inputs, weights)


def _serialise(nodes: list[Any], inputs: list[Any], weights: np.ndarray[Any, Any]) -> bytes:
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", weights.shape[0]])]
    constants = [numpy_helper.from_array(weights.T.astype(np.float32), "weights")]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialised: bytes = model.SerializeToString()
    return serialised
