"""The test models, what each expects of its frame, and how a chain and a file of it are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from edgemask.chain import Chain, resolve
from edgemask.frame.normalise import Normalise
from edgemask.masks.thermometer import Thermometer
from edgemask.models import Model, read_model
from edgemask.ops.numpy import NumpyOps
from edgemask.spec import Spec
from edgemask.steps import Map, Output, Wrap
from edgemask_runtime.engines import Engine, open_engine

from .harness import stepped

FOLDER = Path(__file__).parent.parent / "models"
Array = np.ndarray[Any, Any]

A = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
B = Normalise()
EXPECTS: dict[str, tuple[Map, ...]] = {
    "torch_nchw.onnx": (A,),
    "torch_nchw_opset11.onnx": (A,),
    "qdq.onnx": (A,),
    "thermometer.onnx": (Thermometer(16),),
    "tf2onnx_nhwc.onnx": (B,),
    "keras_float.tflite": (B,),
    "keras_int8.tflite": (),
    "keras_uint8.tflite": (),
}
"""What stands between a 32 x 32 RGB frame and each model (models/make/README.md)."""

SCORES = {name: "logits" if name.startswith(("torch_nchw.", "qdq", "therm")) else "probabilities" for name in EXPECTS}


@cache
def model_of(name: str) -> Model:
    return read_model(FOLDER / name)


def chain_of(model: Model, frame: Spec, steps: Sequence[Map | Wrap], outputs: Sequence[Output] = ()) -> Chain:
    return resolve(frame, steps, model.inputs, model.outputs, outputs)


def source_of(model: Model) -> Callable[[Array], dict[str, Array]]:
    """The trained model on its engine."""
    engine, name = model.open(), model.inputs[0].name
    return lambda x: _batched(engine, {name: np.ascontiguousarray(x)})


def expected_of(chain: Chain, model: Model, frames: Array, entropy: Array | None = None) -> dict[str, Array]:
    """The reference: the chain by NumPy around the trained model on its engine."""
    return chain.run(NumpyOps(), frames, entropy, source_of(model))


def baked_answer(model: Model, data: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What a baked file gives."""
    return _batched(open_engine(model.engine, data), feeds)


def _batched(engine: Engine, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All samples at once where an ONNX model's batch is free, else one by one."""
    if engine.info.name == "onnxruntime" and engine.inputs[0].shape[0] is None:
        return engine.run(feeds)
    count = len(next(iter(feeds.values())))
    answers = [engine.run({name: feed[i : i + 1] for name, feed in feeds.items()}) for i in range(count)]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def probabilities(name: str, frames: Array) -> Array:
    """The trained model's answer to frames, computed without a chain's outputs."""
    model = model_of(name)
    x = frames
    for link in chain_of(model, Spec.image(32, 32, "rgb"), EXPECTS[name]).links:
        x = stepped(link.step, x)  # type: ignore[arg-type]
    (scores,) = source_of(model)(x).values()
    if model.outputs[0].quantisation:
        scale, zero_point = model.outputs[0].quantisation
        return (scores.astype(np.float64) - zero_point) * scale
    return scipy.special.softmax(scores.astype(np.float64), -1) if SCORES[name] == "logits" else scores
