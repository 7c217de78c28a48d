"""The proof on both families: what is masked, what is not, and whose doing that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from edgemask.chain import Chain
from edgemask.detectors.feature_squeeze import FeatureSqueeze
from edgemask.frame.colour import Gray, Rgb
from edgemask.frame.normalise import Normalise
from edgemask.frame.resize import Resize
from edgemask.masks.bit_depth import BitDepth
from edgemask.masks.jpeg import Jpeg
from edgemask.masks.median import Median
from edgemask.masks.noise import Noise
from edgemask.masks.thermometer import Thermometer
from edgemask.models import Model
from edgemask.models.onnx import OnnxModel
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.rounding import to_float
from edgemask.outputs.top_k import TopK
from edgemask.proof import Proof, prove
from edgemask.spec import DType, Spec
from edgemask.steps import Map, Mask, Output, Wrap, registry
from edgemask_runtime.engines import open_engine

from .files import EXPECTS, Array, chain_of, model_of
from .tiny import SIDE, around_tiny, tiny_onnx, tiny_tflite

GARMENT = Spec.image(32, 32, "rgb")
FAMILIES = ("onnx", "tflite")
FLOAT = {"onnx": "torch_nchw.onnx", "tflite": "keras_float.tflite"}
Build = Callable[[Any, Any], Any]


def proof_of(name: str, steps: list[Map | Wrap], outputs: list[Output] | None = None, frame: Spec = GARMENT) -> Proof:
    """The proof of a test model behind `steps` and what it expects of its frame."""
    model = model_of(name)
    chain = chain_of(model, frame, [*steps, *EXPECTS[name]], outputs or [])
    return prove(type(model)(model.path, model.graft(chain, "{}")).graph())


def proof_of_tiny(family: str, *steps: Map | Wrap) -> Proof:
    return prove(around_tiny(family, list(steps))[1].graph())


@dataclass(frozen=True)
class Named(Map):
    """A step that stands under the name of another: what its nodes are called proves nothing."""

    kind: ClassVar[str] = "jpeg"
    made: Build = lambda ops, x: x
    floats: bool = True

    def spec(self, x: Spec) -> Spec:
        return x

    def build(self, ops: Any, x: Any, entropy: Any) -> Any:
        return self.made(ops, to_float(ops, x) if self.floats else x)


class Reframed(Named):
    kind: ClassVar[str] = "resize"


def zeroed_round(ops: Any, x: Any) -> Any:
    return ops.add(x, ops.mul(ops.sub(ops.round(x), x), 0.0))


def rounded(ops: Any, x: Any) -> Any:
    return ops.round(x)


def thresholded(ops: Any, x: Any) -> Any:
    """The frame decides which of two constants is taken."""
    ones = np.ones(ops.shape(x), np.float32)
    return ops.where(ops.greater(x, 99.5), ops.const(ones), ops.const(ones * 2))


def chosen(ops: Any, x: Any) -> Any:
    """The frame decides which half of itself is taken: the data operand passes its gradient."""
    return ops.where(ops.greater(x, 99.5), x, ops.mul(x, 0.5))


def through_whole(ops: Any, x: Any) -> Any:
    return ops.cast(ops.cast(x, "int32"), "float32")


def mixed(ops: Any, x: Any) -> Any:
    """Two masks side by side, each on one of the paths."""
    with ops.scope("1.jpeg"):
        left = ops.round(x)
    with ops.scope("1.bit-depth"):
        right = ops.floor(ops.mul(x, 0.5))
    return ops.add(left, right)


def half_mixed(ops: Any, x: Any) -> Any:
    with ops.scope("1.jpeg"):
        left = ops.round(x)
    return ops.add(left, ops.mul(x, 1e-6))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "mask", [Jpeg(75), Jpeg(100), Jpeg(75, "4:2:0"), BitDepth(1), BitDepth(7), Thermometer(16)], ids=str
)
def test_masked(family: str, mask: Mask) -> None:
    after = [Normalise()] if mask.kind != "thermometer" else []
    proof = proof_of_tiny(family, mask, *after)
    name = f"1.{mask.kind}"
    assert (proof.masked, proof.cut_by) == (True, (name,))
    assert [step for step, cuts in proof.steps.items() if cuts] == [name]
    assert len(proof.lift_at) == 1
    (output,) = proof.outputs.values()
    assert output.cut
    assert output.nodes
    assert all(label.startswith(f"{name}: ") for label in output.nodes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Median()],
        [Noise()],
        [Noise("uniform", 20)],
        [Noise(), Median()],
        [FeatureSqueeze("bit-depth:bits=1")],
        [FeatureSqueeze("jpeg")],
        [Resize(24, 24, "nearest"), Resize(32, 32, "nearest")],
    ],
    ids=lambda steps: ",".join(map(str, steps)) or "nothing",
)
def test_not_masked(family: str, steps: list[Map | Wrap]) -> None:
    proof = proof_of(FLOAT[family], steps)
    assert (proof.masked, proof.cut_by) == (False, ())
    assert not any(proof.steps.values())
    assert proof.outputs[{"onnx": "logits", "tflite": "probabilities"}[family]].cut is False
    assert proof.lift_at


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", [Resize(32, 32), Gray()], ids=str)
def test_a_frame_steps_cut_is_its_own(family: str, step: Map) -> None:
    frame = Spec.image(48, 40, "rgb")
    steps = [step, Resize(32, 32, "nearest"), *([Rgb()] if step.kind == "gray" else [])]
    proof = proof_of(FLOAT[family], list(steps), frame=frame)
    assert (proof.masked, proof.cut_by) == (False, ())
    assert proof.steps[f"1.{step.kind}"] is True
    (output,) = proof.outputs.values()
    assert output.cut
    assert all(label.startswith(f"1.{step.kind}: ") for label in output.nodes)


@pytest.mark.parametrize("name", ["keras_int8.tflite", "keras_uint8.tflite", "qdq.onnx"])
@pytest.mark.parametrize("steps", [[], [Median()]], ids=["nothing", "median"])
def test_a_quantised_models_cut_is_its_own(name: str, steps: list[Map | Wrap]) -> None:
    proof = proof_of(name, steps)
    assert (proof.masked, proof.cut_by) == (False, ())
    if name == "qdq.onnx":
        assert proof.outputs["logits"].cut
        assert all(label.startswith("model: QuantizeLinear") for label in proof.outputs["logits"].nodes)


@pytest.mark.parametrize("family", FAMILIES)
def test_top_k_cuts_only_its_indices(family: str) -> None:
    proof = proof_of(FLOAT[family], [], [TopK(3)])
    assert (proof.masked, proof.cut_by) == (False, ())
    assert {name: output.cut for name, output in proof.outputs.items()} == {
        **{info.name: False for info in model_of(FLOAT[family]).outputs},
        "top_scores": False,
        "top_indices": True,
    }
    assert proof.outputs["top_scores"].nodes == ()
    (node,) = proof.outputs["top_indices"].nodes
    assert node.lower().split(".", 1)[1].startswith("top-k: topk")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("made", "masked"),
    [
        (zeroed_round, False),
        (rounded, True),
        (thresholded, True),
        (chosen, False),
        (through_whole, True),
        (lambda ops, x: ops.gather(x, [0] * SIDE, 0), False),
        (lambda ops, x: ops.clip(ops.max(ops.min(x, 200.0), 3.0), 4.0, 100.0), False),
        (lambda ops, x: ops.mul(x, 1.0), False),
    ],
    ids="zeroed-round round where-condition where-data whole gather-data min-max named".split(),
)
def test_the_graph_decides_and_not_its_names(family: str, made: Build, masked: bool) -> None:
    proof = proof_of_tiny(family, Named(made))
    assert (proof.masked, proof.steps["1.jpeg"]) == (masked, masked)
    assert proof.cut_by == (("1.jpeg",) if masked else ())
    assert proof.outputs[next(iter(proof.outputs))].cut is masked


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cast_from_pixels_to_real_numbers_passes(family: str) -> None:
    proof = proof_of_tiny(family, Named(lambda ops, x: ops.cast(x, "float32"), floats=False))
    assert (proof.masked, proof.steps["1.jpeg"]) == (False, False)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_cut_in_a_frame_step_masks_nothing(family: str) -> None:
    proof = proof_of_tiny(family, Reframed(rounded))
    assert (proof.masked, proof.cut_by, proof.steps["1.resize"]) == (False, (), True)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_in_parallel_branches_cut_together(family: str) -> None:
    proof = proof_of_tiny(family, Reframed(mixed))
    assert (proof.masked, set(proof.cut_by)) == (True, {"1.jpeg", "1.bit-depth"})
    assert proof_of_tiny(family, Reframed(half_mixed)).masked is False


@pytest.mark.parametrize("family", FAMILIES)
def test_one_mask_behind_another(family: str) -> None:
    proof = proof_of(FLOAT[family], [Median(), BitDepth(3), Jpeg(50)])
    assert (proof.masked, proof.cut_by) == (True, ("2.bit-depth",))
    assert proof.steps["1.median"] is False
    assert proof.steps["2.bit-depth"] is proof.steps["3.jpeg"] is True


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_behind_a_wrap_cuts_both_calls(family: str) -> None:
    proof = proof_of(FLOAT[family], [FeatureSqueeze("median"), BitDepth(3)])
    assert (proof.masked, proof.cut_by, len(proof.lift_at)) == (True, ("2.bit-depth",), 2)
    assert proof.outputs["suspicion"].cut
    before = proof_of(FLOAT[family], [BitDepth(3), FeatureSqueeze("median")])
    assert (before.masked, before.cut_by) == (True, ("1.bit-depth",))


@pytest.mark.parametrize("name", ["torch_nchw.onnx", "keras_float.tflite", "keras_int8.tflite", "qdq.onnx"])
def test_a_file_that_was_not_baked(name: str) -> None:
    model = model_of(name)
    proof = prove(model.graph())
    assert (proof.masked, proof.cut_by, proof.steps) == (False, (), {})
    assert len(proof.lift_at) == 1
    assert proof.outputs[model.outputs[0].name].cut is (name == "qdq.onnx")


@pytest.mark.parametrize("make", [tiny_onnx, tiny_tflite])
def test_a_model_cannot_pass_its_own_cut_off_as_a_masks(make: Callable[..., Model]) -> None:
    model = make((SIDE, SIDE, 3), "edgemask/1.jpeg/Round_1")
    assert prove(model.graph()).masked is False
    chain = chain_of(model, Spec.image(SIDE, SIDE, "rgb"), [Median()])
    proof = prove(type(model)(model.path, model.graft(chain, "{}")).graph())
    (output,) = proof.outputs.values()
    assert (proof.masked, proof.cut_by, output.cut) == (False, (), True)
    assert [label.split(":")[0] for label in output.nodes] == ["model"]


def gathered(data: str, index: str) -> bytes:
    """`data` read at `index` under the name of a mask; each is the frame as whole numbers or a fixed table."""
    step = "edgemask/1.jpeg/"
    cast = helper.make_node("Cast", ["frame"], ["whole"], f"{step}Cast", to=TensorProto.INT64)
    gather = helper.make_node("Gather", [data, index], ["picked"], f"{step}Gather", axis=0)
    floats = helper.make_node("Cast", ["picked"], ["image"], "edgemask/2.input/Cast", to=TensorProto.FLOAT)
    model = helper.make_node("Relu", ["image"], ["scores"], "relu")
    table = numpy_helper.from_array(np.zeros(4, np.int64), "table")
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [4])
    graph = helper.make_graph([cast, gather, floats, model], "g", [frame], [scores], [table])
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


@pytest.mark.parametrize(
    ("data", "index", "masked"), [("table", "whole", True), ("whole", "table", False), ("whole", "whole", False)]
)
def test_an_index_cuts_and_what_it_reads_does_not(data: str, index: str, masked: bool) -> None:
    proof = prove(OnnxModel(Path("gather.onnx"), gathered(data, index)).graph())
    assert (proof.masked, proof.lift_at) == (masked, ("image",))


def test_the_model_can_be_lifted_out_where_the_proof_says() -> None:
    model = model_of("torch_nchw.onnx")
    chain = chain_of(model, GARMENT, [Jpeg(), *EXPECTS["torch_nchw.onnx"]])
    baked = onnx.shape_inference.infer_shapes(onnx.load_from_string(model.graft(chain, "{}")))
    (at,) = prove(OnnxModel(model.path, baked.SerializeToString()).graph()).lift_at
    lifted = Extractor(baked).extract_model([at], ["logits"])
    pixels = np.random.default_rng(1).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
    (answer,) = open_engine("onnxruntime", lifted.SerializeToString()).run({at: pixels}).values()
    np.testing.assert_array_equal(answer, model.open().run({"image": pixels})["logits"])
    assert not any(node.op_type == "Round" for node in lifted.graph.node)


class Relaxed(NumpyOps):
    """NumPy on real-valued frames, where only masks may round: what is flat here, a mask made flat."""

    def __init__(self) -> None:
        self._roles = ["frame"]

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        step = registry().get(name.partition(".")[2])
        self._roles.append(step.role if step else "model")
        yield
        self._roles.pop()

    def round(self, x: Array) -> Array:
        return super().round(x) if self._roles[-1] == "mask" else x

    def floor(self, x: Array) -> Array:
        return super().floor(x) if self._roles[-1] == "mask" else x

    def cast(self, x: Array, dtype: DType) -> Array:
        smooth = self._roles[-1] != "mask" and x.dtype.kind == "f"
        return x if smooth else super().cast(x, dtype)


EPSILON = 5e-4
DRAWS = 11


def fed(chain: Chain, frame: Array, entropy: Array | None) -> list[Array]:
    """What the model is called with."""
    seen: list[Array] = []

    def model(x: Array) -> dict[str, Array]:
        seen.append(x)
        return {info.name: np.zeros((1, info.shape[1] or 1), np.float32) for info in chain.model_outputs}

    chain.run(Relaxed(), frame, entropy, model)
    return seen


def flat(chain: Chain) -> bool:
    """Whether the model's input stays exactly as it is when a patch of a real-valued frame moves a little."""
    source = np.random.default_rng(7)
    entropy = source.integers(0, 256, (1, chain.entropy_bytes), np.uint8) if chain.entropy_bytes else None
    unmoved = 0
    for _ in range(DRAWS):
        frame = source.uniform(70, 180, (1, *chain.frame.sample)).astype(np.float32)
        moved = frame.copy()
        patch = moved[:, 4:10, 4:10]
        patch += source.uniform(-EPSILON, EPSILON, patch.shape).astype(np.float32)
        pairs = zip(fed(chain, frame, entropy), fed(chain, moved, entropy), strict=True)
        unmoved += all(np.array_equal(before, after) for before, after in pairs)
    assert unmoved in (0, 1, DRAWS - 3, DRAWS - 2, DRAWS - 1, DRAWS), "the finding is not clear"
    return unmoved > DRAWS // 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("steps", "masked"),
    [
        ([Jpeg(75)], True),
        ([Jpeg(30, "4:2:0")], True),
        ([BitDepth(4)], True),
        ([Thermometer(16)], True),
        ([Median()], False),
        ([Noise()], False),
        ([Gray()], False),
        ([Resize(12, 20)], False),
        ([FeatureSqueeze("bit-depth")], False),
        ([Named(zeroed_round)], False),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
)
def test_masked_is_what_a_tiny_change_of_the_frame_shows(family: str, steps: list[Map | Wrap], masked: bool) -> None:
    chain, baked = around_tiny(family, steps)
    assert flat(chain) is masked
    assert prove(baked.graph()).masked is masked


PIXEL_STEPS: st.SearchStrategy[Map | Wrap] = st.one_of(
    st.builds(Jpeg, st.integers(5, 80), st.sampled_from(["4:4:4", "4:2:0"])),
    st.builds(BitDepth, st.integers(1, 6)),
    st.just(Median()),
    st.builds(Noise, st.sampled_from(["gaussian", "uniform"]), st.sampled_from([2.0, 9.0])),
    st.builds(Resize, st.integers(14, 20), st.integers(14, 20), st.sampled_from(["bilinear", "nearest"])),
    st.just(Gray()),
    st.just(Rgb()),
    st.just(FeatureSqueeze("bit-depth:bits=2")),
)
LAST_STEPS: st.SearchStrategy[list[Map | Wrap]] = st.sampled_from([[], [Normalise()], [Thermometer(8)]])


@given(st.lists(PIXEL_STEPS, max_size=4), LAST_STEPS, st.sampled_from(FAMILIES))
@settings(max_examples=40, deadline=None)
def test_any_chain_is_masked_when_a_tiny_change_of_the_frame_is_lost(
    steps: list[Map | Wrap], last: list[Map | Wrap], family: str
) -> None:
    squeezes = [step for step in steps if isinstance(step, Wrap)]
    chain, baked = around_tiny(family, [*(step for step in steps if step not in squeezes[1:]), *last])
    assert prove(baked.graph()).masked is flat(chain)
