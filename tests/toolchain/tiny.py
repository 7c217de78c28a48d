"""Models of one operator that take any picture: what a chain is proved on when no trained model fits it."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper

from edgemask.chain import Chain, end_of, resolve
from edgemask.models import Model
from edgemask.models.flatbuffer import pack
from edgemask.models.onnx import OnnxModel
from edgemask.models.tflite import TfliteModel
from edgemask.ops.scope import PREFIX
from edgemask.ops.tflite import TfliteOps, text
from edgemask.spec import Spec
from edgemask.steps import Map, Output, Wrap

from .harness import empty_tflite

SIDE = 16
FRAME = Spec.image(SIDE, SIDE, "rgb")


def around_tiny(
    format_: str, steps: list[Map | Wrap], outputs: list[Output] | None = None, frame: Spec = FRAME
) -> tuple[Chain, Model]:
    """The chain of `steps` around a model that fits their end, and the file with both."""
    shape = end_of(frame, steps).sample
    model = tiny_tflite(shape) if format_ == "tflite" else tiny_onnx(shape)
    chain = resolve(frame, steps, model.inputs, model.outputs, outputs or [], "NHWC")
    return chain, type(model)(model.path, model.graft(chain, "{}"))


def tiny_onnx(shape: tuple[int, ...], own_round: str = "") -> Model:
    """`scores` [N, the picture's values] are the picture itself, rounded first by a node called `own_round`."""
    size = shape[0] * shape[1] * shape[2]
    picture = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *shape])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", size])
    rounds = [helper.make_node("Round", ["image"], [own_round], own_round)] if own_round else []
    nodes = [*rounds, helper.make_node("Flatten", [own_round or "image"], ["scores"])]
    graph = helper.make_graph(nodes, "tiny", [picture], [scores])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return OnnxModel(Path("tiny.onnx"), model.SerializeToString())


def tiny_tflite(shape: tuple[int, ...], own_round: str = "") -> Model:
    """The same as TFLite."""
    model = empty_tflite()
    graph, ops = model.subgraphs[0], TfliteOps(model)
    picture = ops.tensor("image", "float32", shape)
    given = ops.round(picture) if own_round else picture
    scores = ops.reshape(given, (shape[0] * shape[1] * shape[2],))
    for tensor in graph.tensors:
        tensor.name = text(tensor.name).removeprefix(PREFIX).encode()
    if own_round:
        graph.tensors[given.index].name = own_round.encode()
    graph.operators, graph.inputs, graph.outputs = ops.operators, [picture.index], [scores.index]
    return TfliteModel(Path("tiny.tflite"), pack(model))
