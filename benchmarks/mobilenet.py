"""A network with MobileNetV2's layers and random weights: its time is the real one's (Sandler et al. 2018, table 2)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, repeats, stride of the first."""


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._source = np.random.default_rng(0)

    def conv(self, x: str, inputs: int, outputs: int, side: int = 1, stride: int = 1, groups: int = 1) -> str:
        weights = self._source.normal(0, 0.05, (outputs, inputs // groups, side, side)).astype(np.float32)
        pad = side // 2
        attributes = {"kernel_shape": [side, side], "strides": [stride] * 2, "pads": [pad] * 4, "group": groups}
        return self.add("Conv", [x, self._weight(weights), self._weight(np.zeros(outputs, np.float32))], **attributes)

    def relu6(self, x: str) -> str:
        limits = [self._weight(np.array(limit, np.float32)) for limit in (0, 6)]
        return self.add("Clip", [x, *limits])

    def bottleneck(self, x: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        wide = inputs * expansion
        y = self.relu6(self.conv(x, inputs, wide)) if expansion > 1 else x
        y = self.relu6(self.conv(y, wide, wide, 3, stride, wide))
        y = self.conv(y, wide, outputs)
        return self.add("Add", [x, y]) if stride == 1 and inputs == outputs else y

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))  # type: ignore[arg-type]
        return name

    def _weight(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name


def mobilenet_v2() -> bytes:
    """The ONNX file: `image` float32 [N, 3, 224, 224] to `logits` [N, 1000]."""
    build = _Builder()
    x, channels = build.relu6(build.conv("image", 3, 32, 3, 2)), 32
    for expansion, outputs, repeats, stride in BOTTLENECKS:
        for repeat in range(repeats):
            x = build.bottleneck(x, channels, outputs, expansion, stride if repeat == 0 else 1)
            channels = outputs
    x = build.relu6(build.conv(x, channels, 1280))
    x = build.add("GlobalAveragePool", [x])
    x = build.conv(x, 1280, 1000)
    build.nodes.append(helper.make_node("Flatten", [x], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(build.nodes, "mobilenet_v2", [image], [logits], build.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
