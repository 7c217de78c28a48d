"""Latency, step by step. No time is held to a number; what is timed must be the step that it is said to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgemask.artefact import read_artefact
from edgemask.benching import bench_file
from edgemask.device.showing import bench_text
from edgemask.errors import UserError
from edgemask.models.onnx_prefixes import MODEL
from edgemask.models.onnx_prefixes import prefixes as onnx_prefixes
from edgemask.models.tflite_prefixes import prefixes as tflite_prefixes
from edgemask_runtime.engines import open_engine
from edgemask_runtime.timing import _by_run, summary

Bake = Callable[..., Path]


@pytest.mark.parametrize("name", ["torch_nchw.onnx", "keras_float.tflite"])
def test_steps_of_a_baked_file(bake_once: Bake, name: str) -> None:
    path = bake_once(name, "jpeg", "median")
    (told,) = bench_file(path, 20)
    assert told["how"] == "prefixes"
    median = {step["step"]: step["median_ms"] for step in told["steps"]}
    chain = [f"{number}.{note.kind}" for number, note in enumerate(read_artefact(path).label.chain, 1)]
    assert {*chain[:2], MODEL} <= median.keys() <= {*chain, MODEL}
    assert list(median)[:2] == ["1.jpeg", "2.median"]
    assert (told["runs"], told["budget_ms"], told["target"]) == (20, 100, "host")
    assert told["latency"]["median_ms"] <= told["latency"]["p99_ms"]
    text = bench_text(told)
    assert "1.jpeg" in text
    assert "n = 20, 1 threads" in text


def test_a_stochastic_mask_with_a_key(bake_once: Bake) -> None:
    """Entropy is drawn for every run, and a key is made up."""
    (told,) = bench_file(bake_once("torch_nchw.onnx", "noise"), 10)
    assert told["entropy"]["median_ms"] > 0
    json.dumps(told)


def test_parts_of_a_tflite_file_compute_what_the_whole_does(bake_once: Bake) -> None:
    """Each part gives, bit for bit, what the whole file has at that place."""
    data = bake_once("keras_float.tflite", "jpeg", "median").read_bytes()
    whole = open_engine("litert", data, preserve_all_tensors=True)
    frame = np.random.default_rng(1).integers(0, 256, whole.inputs[0].shape, np.uint8)
    ends = whole.run({whole.inputs[0].name: frame})
    parts = list(tflite_prefixes(data))
    assert [step for step, _ in parts][:2] == ["1.jpeg", "2.median"]
    for _, content in parts[:-1]:
        part = open_engine("litert", content, preserve_all_tensors=True)
        given = part.run({part.inputs[0].name: frame})
        assert given
        for name, value in given.items():
            np.testing.assert_array_equal(value, whole.tensor(name))
    last = open_engine("litert", parts[-1][1])
    for mine, other in zip(last.run({last.inputs[0].name: frame}).values(), ends.values(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_parts_of_an_onnx_file_compute_what_the_whole_does(bake_once: Bake) -> None:
    """Against ONNX's own reference interpreter, which gives any tensor of the whole graph."""
    data = bake_once("torch_nchw.onnx", "bit-depth", "median").read_bytes()
    model = onnx.load_model_from_string(data)
    frame = np.random.default_rng(1).integers(0, 256, [1, *(d.dim_value for d in _dims(model)[1:])], np.uint8)
    parts = list(onnx_prefixes(data))
    assert [step for step, _ in parts][:2] == ["1.bit-depth", "2.median"]
    assert parts[-1][1] == data
    assert [step for step, _ in parts].count(MODEL) == 1
    for _, content in parts[:2]:
        part = open_engine("onnxruntime", content)
        given = part.run({"frame": frame})
        assert given
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in given)
        expected = ReferenceEvaluator(model).run(list(given), {"frame": frame})
        for mine, other in zip(given.values(), expected, strict=True):
            np.testing.assert_array_equal(mine, other)


def _dims(model: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(model.graph.input[0].type.tensor_type.shape.dim)


def test_a_profile_is_shared_out_among_its_runs() -> None:
    """Two runs of known nodes: each millisecond is somebody's, and none is counted twice."""

    def node(name: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur}

    def run(ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur}

    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9},
        *(
            node("edgemask/1.jpeg/Pad_1", 110, 500),
            node("edgemask/1.jpeg/Round_2", 620, 1500),
            node("conv1", 2200, 700),
        ),
        *(node("edgemask/graph/Cast_9", 3000, 50), run(100, 3000)),
        *(node("edgemask/2.top-k/TopK_3", 4010, 250), node("ReorderOutput", 4300, 100), run(4000, 500)),
    ]
    first, second = _by_run(list(reversed(events)))
    assert first == pytest.approx({"1.jpeg": 2.0, "model": 0.7, "glue": 0.05, "engine": 0.25})
    assert second == pytest.approx({"2.top-k": 0.25, "model": 0.1, "engine": 0.15})


def test_a_summary() -> None:
    assert summary(range(1, 101)) == {"median_ms": 50.5, "p99_ms": 99.01}


def test_what_cannot_be_timed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not baked"):
        bench_file(Path("tests/models/torch_nchw.onnx"))
    with pytest.raises(UserError):
        bench_file(tmp_path / "nothing.edgemask")
