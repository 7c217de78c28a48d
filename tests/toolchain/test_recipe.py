"""Recipes: every fault at once, nothing but a UserError whatever is in the file, and the ones that `init` writes."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import example, given, settings
from hypothesis import strategies as st

import edgemask
from edgemask.errors import UserError
from edgemask.frame.normalise import Normalise
from edgemask.frame.resize import Resize
from edgemask.masks.jpeg import Jpeg
from edgemask.masks.noise import Noise
from edgemask.outputs.top_k import TopK
from edgemask.recipe import OUTPUT_ROLES, STEP_ROLES, Recipe, parse_recipe, read_recipe
from edgemask.steps import registry
from edgemask.suggest import to_toml
from edgemask_runtime.manifest import CanRecord

from .files import FOLDER

WHERE = Path("folder/edgemask.toml")
WHOLE = """
schema = 1
name = "whole"
[model]
file = "model.onnx"
labels = "labels.txt"
layout = "NCHW"
[frame]
width = 64
height = 48
colour = "bgr"
[verify]
images = "images"
[runtime]
max_age_ms = 500
[thresholds]
suspicion = 0.5
[[steps]]
kind = "resize"
width = 32
height = 32
interpolation = "nearest"
[[steps]]
kind = "noise"
strength = 4
[[steps]]
kind = "jpeg"
quality = 60
subsampling = "4:2:0"
[[steps]]
kind = "normalise"
mean = [0.5, 0.5, 0.5]
std = [1, 2, 3.5]
[[outputs]]
kind = "top-k"
k = 3
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_recipe(text, WHERE)
    return caught.value.message.splitlines()


def test_a_whole_recipe() -> None:
    recipe = parse_recipe(WHOLE, WHERE)
    assert recipe.steps == (
        Resize(32, 32, "nearest"),
        Noise("gaussian", 4.0),
        Jpeg(60, "4:2:0"),
        Normalise(mean=(0.5, 0.5, 0.5), std=(1.0, 2.0, 3.5)),
    )
    assert recipe.outputs == (TopK(3),)
    assert (recipe.model_path, recipe.images_path) == (Path("folder/model.onnx"), Path("folder/images"))
    assert (recipe.frame.width, recipe.frame.height, recipe.frame.colour) == (64, 48, "bgr")
    assert (recipe.runtime.max_age_ms, recipe.thresholds) == (500, {"suspicion": 0.5})


def test_what_may_go_on_a_can_bus_can_be_told_apart() -> None:
    messages = """
    [[runtime.can]]
    message = "objects"
    id = 0x640
    [[runtime.can]]
    message = "objects-fd"
    id = 0x1640
    data_id = 0x640
    period_ms = 2
    """
    assert "$.runtime.can[1].period_ms: value 2; allowed: 5 to 10000" in faults_of(WHOLE + messages)[0]
    faults = faults_of(WHOLE + messages.replace("period_ms = 2", ""))
    assert [fault.split(": ")[1] for fault in faults] == ["$.runtime.can[1].id", "$.runtime.can[1].data_id"]
    extended = messages.replace("period_ms = 2", "extended = true").replace("data_id = 0x640", "")
    told = [entry.record() for entry in parse_recipe(WHOLE + extended, WHERE).runtime.can]
    assert told == [CanRecord("objects", 0x640, False, 0x640, 100), CanRecord("objects-fd", 0x1640, True, 0x1640, 100)]


def test_every_fault_is_reported_at_once() -> None:
    text = """
    schema = 2
    name = "has spaces"
    colour = "rgb"
    [model]
    files = "model.onnx"
    layout = "NHCW"
    [frame]
    width = 0
    height = "48"
    colour = "rbg"
    [runtme]
    [[steps]]
    kind = "jpg"
    [[steps]]
    kind = "jpeg"
    quality = 101
    subsampling = "4:2:2"
    sharpness = 3
    [[steps]]
    quality = 5
    [[steps]]
    kind = "noise"
    strength = true
    [[steps]]
    kind = "softmax"
    [[outputs]]
    kind = "topk"
    [[outputs]]
    kind = "top-k"
    k = 1.5
    """
    steps, outputs = (
        ", ".join(sorted(kind for kind, cls in registry().items() if cls.role in roles))
        for roles in (STEP_ROLES, OUTPUT_ROLES)
    )
    keys = "schema, name, model, frame, steps, rewrites, outputs, thresholds, verify, runtime, recognise, "
    keys += "precision, policy"
    assert faults_of(text) == [
        f"{WHERE}: {line}"
        for line in [
            f"$.colour: unknown key; allowed: {keys}",
            f"$.runtme: unknown key; allowed: {keys}; did you mean 'runtime'?",
            "$.schema: value 2; allowed: 1",
            '$.name: value "has spaces"; allowed: text like [A-Za-z0-9][A-Za-z0-9._-]{0,99}',
            "$.model.files: unknown key; allowed: file, labels, layout, trained_with, format, input_shape, module; "
            "did you mean 'file'?",
            "$.model.file: missing",
            "$.model.layout: value \"NHCW\"; allowed: NHWC, NCHW; did you mean 'NHWC'?",
            "$.frame.width: value 0; allowed: 1 to 16384",
            '$.frame.height: value "48"; allowed: int',
            "$.frame.colour: value \"rbg\"; allowed: gray, rgb, bgr, rgba, bgra, nv12, i420, yuyv; did you mean 'rgb'?",
            f"$.steps[0].kind: value 'jpg'; allowed: {steps}; did you mean 'jpeg'?",
            "$.steps[1].sharpness: unknown key; allowed: quality, subsampling",
            "$.steps[1].quality: value 101; allowed: 1 to 100",
            "$.steps[1].subsampling: value \"4:2:2\"; allowed: 4:4:4, 4:2:0; did you mean '4:2:0'?",
            f"$.steps[2].kind: missing; allowed: {steps}",
            "$.steps[3].strength: value true; allowed: float",
            f"$.steps[4].kind: value 'softmax'; allowed: {steps}",
            f"$.outputs[0].kind: value 'topk'; allowed: {outputs}; did you mean 'top-k'?",
            "$.outputs[1].k: value 1.5; allowed: int",
        ]
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("schema = 1\n", "", "$.schema: missing"),
        ("[frame]\nwidth = 64\nheight = 48\ncolour = \"bgr\"\n", "", "$.frame: missing"),
        ("width = 64", "width = 1979-05-27", '$.frame.width: value "1979-05-27"; allowed: int'),
        ("width = 64", "width = 07:32:00", '$.frame.width: value "07:32:00"; allowed: int'),
        ("width = 64", f"width = {'9' * 30}", f'$.frame.width: value "{"9" * 30}"; allowed: int'),
        ("suspicion = 0.5", "suspicion = nan", '$.thresholds.suspicion: value "nan"; allowed: float'),
        ("suspicion = 0.5", f"suspicion = 1{'0' * 40}", f'$.thresholds.suspicion: value "1{"0" * 40}"; allowed: float'),
        ("[0.5, 0.5, 0.5]", "[0.5, -inf, 0.5]", '$.steps[3].mean[1]: value "-inf"; allowed: float'),
        ("[1, 2, 3.5]", "[1, 0, 3.5]", "$.steps[3].std: value [1, 0, 3.5]; allowed: 1e-06 or more"),
        ("strength = 4", "strength = inf", '$.steps[1].strength: value "inf"; allowed: float'),
        ('"model.onnx"', '""', '$.model.file: value ""; allowed: a path'),
        ('"model.onnx"', '"a\\u0000.onnx"', '$.model.file: value "a\\u0000.onnx"; allowed: a path'),
        ('name = "whole"', 'name = "../up"', '$.name: value "../up"; allowed: text like [A-Za-z0-9]'),
        ("[verify]", "[[verify]]", "$.verify: value [{"),
        ("[[outputs]]", "[outputs]", "$.outputs: value {"),
    ],
)  # fmt: skip
def test_one_fault(old: str, new: str, fault: str) -> None:
    assert old in WHOLE
    (line,) = faults_of(WHOLE.replace(old, new, 1))
    assert line.startswith(f"{WHERE}: {fault}")


@pytest.mark.parametrize("text", ["= 1", "a = [", "a = 1\na = 2", "a = " + "9" * 5000, "a = " + "[" * 20000, "\x00"])
def test_what_is_no_toml_is_one_clear_error(text: str) -> None:
    (line,) = faults_of(text)
    assert line.startswith(f"{WHERE}: not valid TOML: ")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "edgemask.toml"
    with pytest.raises(UserError, match=r"edgemask\.toml: cannot read: No such file"):
        read_recipe(path)
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(UserError, match=r"edgemask\.toml: not UTF-8 text: invalid start byte at byte 8"):
        read_recipe(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(UserError, match="larger than the 1048576 bytes"):
        read_recipe(path)
    with pytest.raises(UserError, match="cannot read: Is a directory"):
        read_recipe(tmp_path)


def test_a_file_from_an_editor_that_marks_utf8(tmp_path: Path) -> None:
    (tmp_path / "edgemask.toml").write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_recipe(tmp_path / "edgemask.toml").labels() == ("cat", "dog")


def only_user_errors(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_recipe(text, WHERE), Recipe)


SCALARS = st.one_of(
    st.none().map(lambda _: "1979-05-27T07:32:00Z"),
    st.integers().map(str),
    st.integers(-(10**400), 10**400).map(str),
    st.floats().map(lambda x: repr(x)),
    st.booleans().map(lambda x: str(x).lower()),
    st.text('aé4:2jpeg-"\\\n\x00', max_size=8).map(lambda x: json.dumps(x)),
    st.sampled_from(["{}", "[]", "[{}]", "[[]]", "{kind = 'jpeg'}", "[{kind = 'jpeg'}]", "'median:size=4'"]),
)
KEYS = st.sampled_from(
    "schema name model frame steps outputs thresholds verify runtime kind quality file labels layout width "
    "mean std strength squeezer k of suspicion __class__".split()
)
LINES = WHOLE.strip().splitlines()


@given(st.lists(st.tuples(st.integers(0, len(LINES)), KEYS, SCALARS, st.booleans()), min_size=1, max_size=4))
@example([(len(LINES), "suspicion", "1" + "0" * 400, False)])
@settings(max_examples=150, deadline=None)
def test_any_other_value_or_key_is_a_user_error_or_fine(changes: list[tuple[int, str, str, bool]]) -> None:
    lines = list(LINES)
    for at, key, value, replace in changes:
        lines[at : at + replace] = [f"{key} = {value}"]
    only_user_errors("\n".join(lines))


@given(st.integers(0, len(WHOLE)), st.integers(0, 40), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_other_text_is_a_user_error_or_fine(at: int, length: int, text: str) -> None:
    only_user_errors(WHOLE[:at] + text + WHOLE[at + length :])


@pytest.mark.parametrize(
    ("name", "masks", "steps", "outputs"),
    [
        ("torch_nchw.onnx", [], ["normalise"], ["softmax", "top-k"]),
        ("torch_nchw.onnx", ["jpeg:quality=60"], ["jpeg", "normalise"], ["softmax", "top-k"]),
        ("torch_nchw_opset11.onnx", [], ["normalise"], ["top-k"]),
        ("qdq.onnx", [], ["normalise"], ["softmax", "top-k"]),
        ("tf2onnx_nhwc.onnx", ["noise"], ["noise", "normalise"], ["top-k"]),
        ("thermometer.onnx", ["thermometer"], ["thermometer"], ["softmax", "top-k"]),
        ("keras_float.tflite", ["median", "jpeg"], ["median", "jpeg", "normalise"], ["top-k"]),
        ("keras_int8.tflite", ["bit-depth:bits=3"], ["bit-depth"], ["top-k"]),
        ("keras_uint8.tflite", [], [], ["top-k"]),
    ],
)
def test_init_writes_a_recipe_that_bakes_with_parity(
    name: str, masks: list[str], steps: list[str], outputs: list[str], tmp_path: Path
) -> None:
    path = edgemask.init(FOLDER / name, tmp_path / "edgemask.toml", masks=masks, trained_with_mask=True)
    recipe = read_recipe(path)
    assert [step.kind for step in recipe.steps] == steps
    assert [step.kind for step in recipe.outputs] == outputs
    baked = edgemask.bake(recipe=path)
    assert baked.parity.passed
    assert [note.kind for note in baked.artefact.label.chain] == [*steps, "input", *outputs]
    assert ("pixels / 255 is assumed" in path.read_text()) is ("normalise" in steps)
    assert "rgb is assumed" in path.read_text()


def test_what_init_writes_is_what_it_meant() -> None:
    recipe = parse_recipe(WHOLE.replace('"model.onnx"', json.dumps('a "b" \\ \t\n\x7f é😀.onnx', ensure_ascii=False)
                                        .replace("\x7f", "\\u007f")), WHERE)  # fmt: skip
    values = tomllib.loads(to_toml(recipe))
    assert values["model"]["file"] == 'a "b" \\ \t\n\x7f é😀.onnx'
    again = parse_recipe(to_toml(recipe), WHERE)
    assert (again.steps, again.outputs, again.frame) == (recipe.steps, recipe.outputs, recipe.frame)


@pytest.mark.parametrize("stem", ["my model (1)", 'a"b\nc', "..hidden", "größe", "😀"])
def test_init_takes_a_model_of_any_name(stem: str, tmp_path: Path) -> None:
    model = tmp_path / "models" / f"{stem}.tflite"
    model.parent.mkdir()
    shutil.copy(FOLDER / "keras_uint8.tflite", model)
    path = edgemask.init(model, tmp_path / "edgemask.toml")
    assert read_recipe(path).model_path.samefile(model)
    assert edgemask.bake(recipe=path).parity.passed


def test_init_keeps_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "edgemask.toml"
    path.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        edgemask.init(FOLDER / "qdq.onnx", path)
    assert path.read_text() == "mine"
    edgemask.init(FOLDER / "qdq.onnx", path, force=True)
    assert read_recipe(path).name == "qdq"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("two_inputs.onnx", r"the model has 2 inputs \(left, right\)"),
        ("thermometer.onnx", "takes 48 channels"),
        ("missing.onnx", "cannot read"),
        ("make/README.md", "is no model format"),
    ],
)
def test_init_refuses_what_it_cannot_feed(name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        edgemask.init(FOLDER / name, tmp_path / "edgemask.toml")
    assert list(tmp_path.iterdir()) == []


def test_masks_go_before_the_first_normalise_step() -> None:
    recipe = parse_recipe(WHOLE, WHERE).with_masks([Jpeg(10)])
    assert [step.kind for step in recipe.steps] == ["resize", "noise", "jpeg", "jpeg", "normalise"]
    assert recipe.steps[3] == Jpeg(10)


def labelled(tmp_path: Path, content: bytes | None, **extra: Any) -> Path:
    path = edgemask.init(FOLDER / "keras_float.tflite", tmp_path / "edgemask.toml")
    path.write_text(path.read_text().replace("[model]\n", '[model]\nlabels = "names.txt"\n'))
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    return path


def test_labels_are_baked_in(tmp_path: Path) -> None:
    names = tuple("t-shirt trouser pullover dress coat sandal shirt sneaker bag böot".split())
    baked = edgemask.bake(recipe=labelled(tmp_path, "\n".join(names).encode()))
    assert baked.artefact.label.labels == names


@pytest.mark.parametrize(("content", "problem"), [(None, "cannot read"), (b"\xff", "not UTF-8 text")])
def test_labels_that_cannot_be_read(content: bytes | None, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"names\.txt: {problem}"):
        edgemask.bake(recipe=labelled(tmp_path, content))
