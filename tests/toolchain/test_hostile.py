"""Model files that are broken or meant to break: read and walked, or one UserError, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from edgemask.errors import UserError
from edgemask.models import Graph, read_model, trial
from edgemask.models.flatbuffer import pack, unpack

from .files import FOLDER

ONNX = ("torch_nchw.onnx", "qdq.onnx", "tf2onnx_nhwc.onnx")
TFLITE = ("keras_float.tflite", "keras_int8.tflite", "keras_uint8.tflite")
WORDS = st.sampled_from([0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
Edit = Callable[[bytearray], None]


def flip(at: float, bit: int) -> Edit:
    def edit(data: bytearray) -> None:
        data[int(at * len(data))] ^= 1 << bit

    return edit


def overwrite(at: float, word: int) -> Edit:
    def edit(data: bytearray) -> None:
        place = int(at * len(data)) // 4 * 4
        data[place : place + 4] = word.to_bytes(4, "little")

    return edit


def splice(source: float, target: float, count: int, replaced: int) -> Edit:
    def edit(data: bytearray) -> None:
        begin, end = int(source * len(data)), int(target * len(data))
        data[end : end + replaced] = data[begin : begin + count]

    return edit


def cut(at: float) -> Edit:
    def edit(data: bytearray) -> None:
        del data[int(at * len(data)) :]

    return edit


AT = st.floats(0, 1, exclude_max=True)
SIZES = st.integers(0, 400)
EDITS = st.lists(
    st.builds(flip, AT, st.integers(0, 7)) | st.builds(overwrite, AT, WORDS) | st.builds(splice, AT, AT, SIZES, SIZES),
    min_size=1,
    max_size=12,
)


def read_and_walk(path: Path, data: bytes) -> Graph | None:
    """The file's graph, or None when it is refused as a user's fault."""
    path.write_bytes(data)
    try:
        model = read_model(path)
        described = (model.inputs, model.outputs, model.metadata, model.labels)
        assert all(part is None or len(part) >= 0 for part in described)
        return model.graph()
    except UserError:
        return None


def edited(name: str, edits: list[Edit]) -> bytes:
    data = bytearray((FOLDER / name).read_bytes())
    for edit in edits:
        if data:
            edit(data)
    return bytes(data)


HOSTILE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(HOSTILE, max_examples=80)
@given(name=st.sampled_from(ONNX), edits=EDITS)
@example(name="qdq.onnx", edits=[cut(0.0)])
@example(name="qdq.onnx", edits=[cut(0.5)])
def test_broken_onnx_files(name: str, edits: list[Edit], tmp_path: Path) -> None:
    read_and_walk(tmp_path / "broken.onnx", edited(name, edits))


@settings(HOSTILE, max_examples=12)
@given(name=st.sampled_from(TFLITE), edits=EDITS)
@example(name="keras_float.tflite", edits=[cut(0.0)])
@example(name="keras_float.tflite", edits=[cut(0.99)])
def test_broken_tflite_files(name: str, edits: list[Edit], tmp_path: Path) -> None:
    read_and_walk(tmp_path / "broken.tflite", edited(name, edits))


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 64, b"TFL3" * 16, b"\x08\x00\x00\x00TFL3", b"PK\x03\x04" * 8])
def test_what_is_no_model_is_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    assert read_and_walk(tmp_path / f"none{suffix}", data) is None


@pytest.mark.parametrize("name", [ONNX[0], TFLITE[0]])
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    data = (FOLDER / name).read_bytes()
    for part in (0.1, 0.5, 0.95):
        assert read_and_walk(tmp_path / name, data[: int(len(data) * part)]) is None


def name_that_is_no_text(proto: ModelProto) -> bytes:
    proto.graph.node[0].name = "ABBA"
    return proto.SerializeToString().replace(b"ABBA", b"\xff\xfe\xff\xfe")


def contradicting_shapes(proto: ModelProto) -> bytes:
    weights = proto.graph.value_info[0]
    assert weights.name in {tensor.name for tensor in proto.graph.initializer}
    weights.type.tensor_type.shape.dim[0].dim_value += 1
    return proto.SerializeToString()


def node_without_inputs(proto: ModelProto) -> bytes:
    del proto.graph.node[0].input[:]
    return proto.SerializeToString()


def weights_too_short(proto: ModelProto) -> bytes:
    proto.graph.initializer[0].raw_data = b"abc"
    return proto.SerializeToString()


def huge_weights(proto: ModelProto) -> bytes:
    proto.graph.initializer[0].dims[:] = [2**40, 2**40]
    return proto.SerializeToString()


def unknown_operator(proto: ModelProto) -> bytes:
    proto.graph.node[0].op_type = "Nonsense"
    return proto.SerializeToString()


def loop_of_nodes(proto: ModelProto) -> bytes:
    proto.graph.node[0].input[0] = proto.graph.node[-1].output[0]
    return proto.SerializeToString()


ONNX_FAULTS = (
    name_that_is_no_text,
    contradicting_shapes,
    node_without_inputs,
    weights_too_short,
    huge_weights,
    unknown_operator,
    loop_of_nodes,
)


@pytest.mark.parametrize("fault", ONNX_FAULTS)
def test_onnx_files_that_lie_are_refused(fault: Callable[[ModelProto], bytes], tmp_path: Path) -> None:
    assert read_and_walk(tmp_path / "lie.onnx", fault(onnx.load(FOLDER / "torch_nchw.onnx"))) is None


def with_shape(*shape: int) -> Callable[[Any, Any], None]:
    def fault(model: Any, main: Any) -> None:
        main.tensors[main.operators[1].outputs[0]].shape = list(shape)

    return fault


def subnormal_scale(model: Any, main: Any) -> None:
    main.tensors[main.inputs[0]].quantization.scale = [1e-44]


def tensor_of_no_number(model: Any, main: Any) -> None:
    main.operators[0].inputs = [10**6, *main.operators[0].inputs[1:]]


def operator_of_no_code(model: Any, main: Any) -> None:
    main.operators[0].opcodeIndex = 10**6


def signature_of_no_tensor(model: Any, main: Any) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 10**6


def metadata_of_no_buffer(model: Any, main: Any) -> None:
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"edgemask", 10**6
    model.metadata = [entry]


def input_that_is_no_text(model: Any, main: Any) -> None:
    model.signatureDefs = []
    main.tensors[main.inputs[0]].name = b"\xff\xfe"


def one_output_twice(model: Any, main: Any) -> None:
    model.signatureDefs = []
    main.outputs = [*main.outputs, *main.outputs]


def weights_cut_short(model: Any, main: Any) -> None:
    weights = max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    weights.data = np.asarray(weights.data)[:5]


TFLITE_FAULTS = {
    "17 GB": with_shape(1, 16, 1 << 26, 16),
    "overflowing": with_shape(1 << 30, 1 << 30, 1 << 30, 1 << 30),
    "negative": with_shape(1, -5, 16, 16),
    **{
        fault.__name__: fault
        for fault in (
            subnormal_scale,
            tensor_of_no_number,
            operator_of_no_code,
            signature_of_no_tensor,
            metadata_of_no_buffer,
            input_that_is_no_text,
            one_output_twice,
            weights_cut_short,
        )
    },
}


@pytest.mark.parametrize("fault", TFLITE_FAULTS)
def test_tflite_files_that_lie_are_refused(fault: str, tmp_path: Path) -> None:
    model = copy.deepcopy(unpack((FOLDER / "keras_uint8.tflite").read_bytes()))
    TFLITE_FAULTS[fault](model, model.subgraphs[0])
    assert read_and_walk(tmp_path / "lie.tflite", pack(model)) is None


def test_a_subgraph_without_lists_is_read_or_refused(tmp_path: Path) -> None:
    for name in ("operators", "outputs"):
        model = unpack((FOLDER / "keras_float.tflite").read_bytes())
        model.signatureDefs = None
        setattr(model.subgraphs[0], name, None)
        read_and_walk(tmp_path / "bare.tflite", pack(model))


def test_a_load_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT_S", 0.01)
    unseen = (FOLDER / "keras_float.tflite").read_bytes() + b"unseen"
    assert trial.refusal(unseen) == "litert has not loaded it after 0.01 s"


def test_a_load_that_crashes_says_so() -> None:
    model = unpack((FOLDER / "keras_uint8.tflite").read_bytes())
    subnormal_scale(model, model.subgraphs[0])
    assert trial.refusal(pack(model)) == "litert crashes on it (exit code -11)"
