"""Chains grafted onto real models: the answers, the weights, the names and the batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper
from third_party import blazeface, quantised

from edgemask.detectors.feature_squeeze import FeatureSqueeze
from edgemask.errors import UserError
from edgemask.frame.colour import Bgr, Rgb
from edgemask.frame.normalise import Normalise
from edgemask.frame.resize import Resize
from edgemask.masks.bit_depth import BitDepth
from edgemask.masks.jpeg import Jpeg
from edgemask.masks.median import Median
from edgemask.masks.noise import Noise
from edgemask.models import Model, read_model
from edgemask.outputs.softmax import Softmax
from edgemask.outputs.top_k import TopK
from edgemask.spec import Spec
from edgemask.steps import Map, Output, Wrap
from edgemask_runtime.engines import open_engine
from edgemask_runtime.entropy import expand

from .files import EXPECTS, SCORES, Array, baked_answer, chain_of, expected_of, model_of
from .pictures import cropped, fashion, load, spec_of

GARMENTS = np.stack(fashion())
FRAME = spec_of(GARMENTS[0])
CACHE = Path.home() / ".cache" / "edgemask-tests"


@dataclass(frozen=True)
class Around:
    """What is put around a model, besides what it expects of its frame."""

    steps: tuple[Map | Wrap, ...] = ()
    outputs: tuple[Output, ...] = ()


AROUND = {
    "nothing": Around(),
    "jpeg": Around((Jpeg(60),)),
    "median": Around((Median(),)),
    "bit depth": Around((BitDepth(3),)),
    "noise": Around((Noise(strength=6),)),
    "top-k": Around((), (TopK(3),)),
    "all": Around((Noise("uniform", 4), Median(), Jpeg(75, "4:2:0"), BitDepth(5)), (TopK(2), TopK(10))[:1]),
    "colours and sizes": Around((Bgr(), Rgb(), Resize(40, 48), Resize(32, 32, "nearest"))),
}


def grafted(model: Model, frame: Spec, around: Around, expects: Sequence[Map]) -> tuple[Any, bytes]:
    chain = chain_of(model, frame, [*around.steps, *expects], around.outputs)
    return chain, model.graft(chain, '{"schema": 1}')


def feeds_of(chain: Any, frames: Array) -> dict[str, Array]:
    count = chain.entropy_bytes
    if not count:
        return {"frame": frames}
    return {"frame": frames, "entropy": expand(bytes(range(32)), count * len(frames)).reshape(len(frames), count)}


def assert_same(answer: dict[str, Array], expected: dict[str, Array]) -> None:
    """Equal but for what another shape of the same weights may round differently."""
    assert list(answer) == list(expected)
    for name, want in expected.items():
        assert (answer[name].dtype, answer[name].shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(answer[name], want, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", EXPECTS)
def test_a_baked_file_answers_as_chain_and_model_do(name: str, around: str) -> None:
    model = model_of(name)
    chain, baked = grafted(model, FRAME, AROUND[around], EXPECTS[name])
    feeds = feeds_of(chain, GARMENTS)
    answer = baked_answer(model, baked, feeds)
    assert_same(answer, expected_of(chain, model, GARMENTS, feeds.get("entropy")))
    if around == "nothing":
        np.testing.assert_array_equal(next(iter(answer.values())).argmax(-1), range(10))


@pytest.mark.parametrize("name", EXPECTS)
def test_names_shapes_and_metadata(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    chain, baked = grafted(model, FRAME, Around((Noise(),), (TopK(3),)), EXPECTS[name])
    path = tmp_path / f"baked{Path(name).suffix}"
    path.write_bytes(baked)
    again = read_model(path)
    assert [info.name for info in again.inputs] == ["frame", "entropy"]
    assert [info.dtype for info in again.inputs] == ["uint8", "uint8"]
    assert [info.shape[1:] for info in again.inputs] == [(32, 32, 3), (chain.entropy_bytes,)]
    assert [info.name for info in again.outputs] == [*(i.name for i in model.outputs), "top_scores", "top_indices"]
    assert again.outputs[0].quantisation == model.outputs[0].quantisation
    assert again.metadata["edgemask"] == '{"schema": 1}'
    assert model.graft(chain, '{"schema": 1}') == baked
    with pytest.raises(UserError, match="baked already"):
        again.graft(chain, "{}")


def onnx_weights(data: bytes) -> Counter[str]:
    graph = onnx.load_model_from_string(data).graph
    return Counter(digest(numpy_helper.to_array(tensor)) for tensor in graph.initializer)


def tflite_weights(data: bytes) -> Counter[str]:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return Counter(digest(np.asarray(buffer.data)) for buffer in model.buffers if buffer.data is not None)


def digest(array: Array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def weights_of(model: Model, data: bytes) -> Counter[str]:
    return onnx_weights(data) if model.format == "onnx" else tflite_weights(data)


@pytest.mark.parametrize("name", EXPECTS)
def test_weights_are_kept_bit_for_bit(name: str) -> None:
    model = model_of(name)
    _, baked = grafted(model, FRAME, AROUND["all"], EXPECTS[name])
    assert weights_of(model, model.data) <= weights_of(model, baked)


@pytest.mark.parametrize("name", [name for name in EXPECTS if name.endswith(".tflite")])
def test_tflite_buffers_lie_at_multiples_of_sixteen(name: str) -> None:
    _, baked = grafted(model_of(name), FRAME, AROUND["all"], EXPECTS[name])
    model = schema.Model.GetRootAs(baked, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    filled = [buffer for buffer in buffers if not buffer.DataIsNone()]
    assert len(filled) > 10
    assert {data_offset(buffer) % 16 for buffer in filled} == {0}


def data_offset(buffer: Any) -> int:
    """Where a buffer's data begins in the file."""
    field = flatbuffers.number_types.UOffsetTFlags.py_type(buffer._tab.Offset(4))
    return int(buffer._tab.Vector(field))


@pytest.mark.parametrize("name", EXPECTS)
def test_two_calls_share_the_weights(name: str) -> None:
    model = model_of(name)
    plain = grafted(model, FRAME, Around((Median(),)), EXPECTS[name])[1]
    squeeze = FeatureSqueeze("median", SCORES[name])  # type: ignore[arg-type]
    _, twice = grafted(model, FRAME, Around((squeeze,)), EXPECTS[name])
    shared, own = weights_of(model, twice), weights_of(model, model.data)
    assert {key: shared[key] for key in own} == own
    assert len(twice) < 1.25 * len(plain)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["torch_nchw.onnx", "qdq.onnx", "thermometer.onnx", "tf2onnx_nhwc.onnx"])
def test_a_free_batch_stays_free(name: str, batch: int) -> None:
    model = model_of(name)
    around = Around((FeatureSqueeze("jpeg:quality=50", SCORES[name]), Noise(), Median()), (TopK(3),))  # type: ignore[arg-type]
    chain, baked = grafted(model, FRAME, around, EXPECTS[name])
    engine = open_engine(model.engine, baked)
    assert [info.shape[0] for info in (*engine.inputs, *engine.outputs)] == [None] * 6
    feeds = feeds_of(chain, GARMENTS[:batch])
    assert_same(engine.run(feeds), expected_of(chain, model, GARMENTS[:batch], feeds["entropy"]))


def test_a_fixed_batch_stays_fixed() -> None:
    name = "torch_nchw_opset11.onnx"
    _, baked = grafted(model_of(name), FRAME, Around((Jpeg(),)), EXPECTS[name])
    assert open_engine("onnxruntime", baked).inputs[0].shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "opset"), [("torch_nchw.onnx", 18), ("tf2onnx_nhwc.onnx", 15), ("torch_nchw_opset11.onnx", 13)]
)
def test_the_opset_is_raised_only_below_13(name: str, opset: int) -> None:
    _, baked = grafted(model_of(name), FRAME, AROUND["all"], EXPECTS[name])
    proto = onnx.load_model_from_string(baked)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.version for entry in proto.opset_import if entry.domain == ""} == {opset}


def test_two_inputs_are_refused() -> None:
    with pytest.raises(UserError, match=r"the model has 2 inputs \(left, right\)"):
        chain_of(model_of("two_inputs.onnx"), FRAME, [Normalise()])


def test_softmax_behind_logits_and_refused_behind_probabilities() -> None:
    model = model_of("torch_nchw.onnx")
    chain, baked = grafted(model, FRAME, Around((), (Softmax(), TopK(3))), EXPECTS["torch_nchw.onnx"])
    assert_same(baked_answer(model, baked, {"frame": GARMENTS}), expected_of(chain, model, GARMENTS))
    with pytest.raises(UserError, match="the model has an output 'probabilities' already"):
        grafted(model_of("tf2onnx_nhwc.onnx"), FRAME, Around((), (Softmax(),)), EXPECTS["tf2onnx_nhwc.onnx"])


@pytest.fixture(scope="session")
def third_party_models() -> dict[str, Path]:
    return {"blazeface": blazeface(CACHE), "resnet": quantised(CACHE)}


@pytest.mark.parametrize(
    "around",
    [
        Around(),
        Around(
            (Median(), Jpeg(75)),
        ),
        Around((Noise(), BitDepth(4))),
    ],
)
def test_blazeface(third_party_models: dict[str, Path], around: Around) -> None:
    model = read_model(third_party_models["blazeface"])
    frames = np.stack([cropped(name, 128, 128) for name in ("coffee.png", "cat.png")])
    chain, baked = grafted(model, spec_of(frames[0]), around, [Normalise(1 / 127.5, (1.0,))])
    feeds = feeds_of(chain, frames)
    answer, expected = baked_answer(model, baked, feeds), expected_of(chain, model, frames, feeds.get("entropy"))
    assert len(answer) == 2
    for name, want in expected.items():
        np.testing.assert_array_equal(answer[name], want)
    assert tflite_weights(model.data) <= tflite_weights(baked)


@pytest.mark.parametrize("around", [Around(), Around((Jpeg(75, "4:2:0"), Median()), (TopK(3),)), Around((Noise(),))])
def test_a_quantised_network_of_others(third_party_models: dict[str, Path], around: Around) -> None:
    model = read_model(third_party_models["resnet"])
    frames = np.stack([load("rocket.jpg"), load("rocket.jpg")[::-1]])
    steps = Around((Resize(32, 32), *around.steps), around.outputs)
    chain, baked = grafted(model, spec_of(frames[0]), steps, [])
    feeds = feeds_of(chain, frames)
    answer, expected = baked_answer(model, baked, feeds), expected_of(chain, model, frames, feeds.get("entropy"))
    assert list(answer) == list(expected)
    for name, want in expected.items():
        np.testing.assert_array_equal(answer[name], want)
