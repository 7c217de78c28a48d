"""The command line as a user meets it: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import edgemask
from edgemask import cli
from edgemask.errors import UserError

from .files import FOLDER
from .pictures import FOLDER as IMAGES
from .tampering import with_constant, with_label

Bake = Callable[..., Path]
EXAMPLE = Path(__file__).parents[2] / "examples" / "driver-id" / "edgemask.toml"
FLOAT, QUANTISED = FOLDER / "torch_nchw.onnx", FOLDER / "keras_int8.tflite"
COMMANDS = ("bake", "inspect", "verify", "init", "predict", "masks", "targets", "build")
SHIRT = IMAGES / "fashion" / "6_shirt.png"


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `edgemask` in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["edgemask", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        found = capsys.readouterr()
        return Ended(int(ended.value.code or 0), found.out, found.err)

    return command


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_version_and_help(run: Run) -> None:
    assert run("--version") == Ended(0, f"edgemask {edgemask.__version__}\n", "")
    everything = run("--help")
    assert everything.code == 0
    assert all(f"  {command} " in everything.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("bake", ["-o", "--out", "--mask", "--recipe", "--frame", "--explain"]),
        ("inspect", ["--json"]),
        ("verify", ["--source", "--recipe", "--images", "--json"]),
        ("init", ["-o", "--out", "--mask", "--frame", "--force"]),
        ("predict", ["--json"]),
        ("masks", ["--json"]),
        ("targets", ["--json"]),
        ("build", ["--target", "-o", "--out", "--images", "--json"]),
    ],
)
def test_each_command_has_a_help(command: str, options: list[str], run: Run) -> None:
    shown = run(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert all(option in shown.out for option in options)


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "edgemask", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"edgemask {edgemask.__version__}\n")


@pytest.mark.parametrize("words", [["--help"], ["bake", "--help"], ["--version"]])
def test_help_waits_for_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from edgemask import cli
sys.argv = ["edgemask", *{words!r}]
try:
    cli.main()
finally:
    print([name for name in ("onnx", "onnxruntime", "numpy", "ai_edge_litert", "PIL") if name in sys.modules])
"""
    done = python(code)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


def test_baking_both_families_imports_no_framework() -> None:
    code = f"""
import sys, edgemask
edgemask.bake({str(FLOAT)!r}, masks=["jpeg"])
edgemask.bake({str(QUANTISED)!r}, masks=["jpeg"])
print([name for name in ("tensorflow", "torch", "keras", "tf2onnx") if name in sys.modules])
"""
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("model", [FLOAT, QUANTISED], ids=lambda path: path.suffix)
def test_bake_inspect_verify_and_predict(model: Path, run: Run) -> None:
    out = Path(f"masked{model.suffix}")
    baked = run("bake", model, "-o", out, "--mask", "jpeg:quality=60", "--mask", "bit-depth", "--explain")
    assert baked.code == 0
    header, _, jpeg, bits, *_ = baked.out.splitlines()
    assert header.split() == "step kind role parameters takes gives entropy bytes key bytes cuts".split()
    assert jpeg.split()[:3] == ["1", "jpeg", "mask"]
    assert "quality=60" in jpeg
    assert bits.split()[-1] == "yes"
    assert "masked: every path from frame to model is cut by 1.jpeg" in baked.out
    assert "rgb is assumed" in baked.err
    shown = run("inspect", out)
    assert (shown.code, "quality=60" in shown.out, "masked: every path" in shown.out) == (0, True, True)
    verified = run("verify", out, "--source", model, "--images", IMAGES)
    assert (verified.code, "parity holds: 8 images and 4 random frames" in verified.out) == (0, True)
    answers = run("predict", out, SHIRT, IMAGES / "cat.png")
    assert answers.code == 0
    assert [line.split(": ")[0] for line in answers.out.splitlines()] == [str(SHIRT), str(IMAGES / "cat.png")]
    assert "(resized from 225×150)" in answers.out.splitlines()[1]


def test_inspect_json_keeps_the_contract(run: Run, bake_once: Bake) -> None:
    ended = run("inspect", bake_once("keras_float.tflite", "noise", "jpeg"), "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["format"]) == (0, "tflite")
    assert found["inputs"] == [
        {"name": "frame", "dtype": "uint8", "shape": [1, 32, 32, 3]},
        {"name": "entropy", "dtype": "uint8", "shape": [1, 32 * 32 * 3 * 4]},
    ]
    assert found["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": [1, 10]}]
    assert [(step["kind"], step["cuts"]) for step in found["steps"]] == [
        ("noise", False),
        ("jpeg", True),
        ("normalise", False),
        ("input", False),
    ]
    assert found["steps"][1]["params"] == {"quality": 75, "subsampling": "4:4:4"}
    assert found["proof"]["masked"] is True
    assert found["proof"]["outputs"]["probabilities"]["cut"] is True
    assert found["proof"]["outputs"]["probabilities"]["nodes"]


def test_inspect_of_a_file_that_was_not_baked(run: Run) -> None:
    found = json.loads(run("inspect", FLOAT, "--json").out)
    assert (found["steps"], found["proof"]["masked"]) == ([], False)
    assert found["proof"]["outputs"] == {"logits": {"cut": False, "nodes": []}}
    assert "not baked: all of it is the model's own" in run("inspect", FLOAT).out


def test_verify_json_and_exit_codes(run: Run, bake_once: Bake, tmp_path: Path) -> None:
    good = bake_once("torch_nchw.onnx", "jpeg")
    passed = run("verify", good, "--source", FLOAT, "--json")
    found = json.loads(passed.out)
    assert (passed.code, found["passed"], found["images"], found["random_frames"]) == (0, True, 0, 4)
    assert {entry["name"] for entry in found["outputs"]} == {"logits"}
    bad = with_constant(good, tmp_path / "bad.onnx", "edgemask/1.jpeg/", lambda x: x * 1.01)
    failed = run("verify", bad, "--source", FLOAT, "--json")
    assert (failed.code, json.loads(failed.out)["passed"]) == (1, False)
    shown = run("verify", bad)
    assert (shown.code, shown.err) == (1, "")
    assert "parity FAILS" in shown.out
    assert "only the prefix was verified" in shown.out


def test_verify_takes_a_recipe(run: Run) -> None:
    assert run("bake", "--recipe", EXAMPLE, "-o", "out.onnx").code == 0
    verified = run("verify", "out.onnx", "--recipe", EXAMPLE)
    assert (verified.code, "only the prefix" in verified.out) == (0, False)
    assert {"logits", "probabilities", "top_indices"} <= {line.split(" ")[0] for line in verified.out.splitlines()}


def test_predict_json(run: Run) -> None:
    run("bake", "--recipe", EXAMPLE, "-o", "out.onnx")
    ended = run("predict", "out.onnx", SHIRT, SHIRT, "--json")
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert (ended.code, first) == (0, second)
    assert (first["image"], first["resized_from"], first["suspicious"]) == (str(SHIRT), [32, 32], None)
    scores = [guess["score"] for guess in first["top"]]
    assert scores == sorted(scores, reverse=True)
    assert [guess["label"] for guess in first["top"]] == [
        (EXAMPLE.parent / "labels.txt").read_text().split()[guess["index"]] for guess in first["top"]
    ]
    assert set(first["outputs"]) == {"logits", "probabilities", "top_scores", "top_indices"}


def test_init_then_bake(run: Run) -> None:
    written = run("init", FLOAT, "--mask", "median")
    assert (written.code, written.out.startswith("edgemask.toml: ")) == (0, True)
    assert run("bake", "--recipe", "edgemask.toml", "-o", "out.onnx", "--mask", "jpeg").code == 0
    assert [s["kind"] for s in json.loads(run("inspect", "out.onnx", "--json").out)["steps"]][:3] == [
        "median",
        "jpeg",
        "normalise",
    ]
    again = run("init", FLOAT)
    assert (again.code, "is there already" in again.err) == (2, True)
    assert run("init", FLOAT, "--force", "-o", "edgemask.toml").code == 0


def test_masks_and_targets(run: Run) -> None:
    masks = json.loads(run("masks", "--json").out)
    assert {"bit-depth", "jpeg", "median", "thermometer", "noise"} <= {m["kind"] for m in masks if m["role"] == "mask"}
    assert all(parameter["doc"] for mask in masks for parameter in mask["parameters"])
    shown = run("masks").out
    assert all(mask["kind"] in shown for mask in masks)
    targets = json.loads(run("targets", "--json").out)
    assert {"host", "jetson", "raspberrypi"} <= {target["name"] for target in targets}
    shown = run("targets").out
    assert all(target["title"] in shown for target in targets)


def test_build(run: Run, tmp_path: Path) -> None:
    ended = run("build", EXAMPLE, "--target", "host", "-o", "here", "--images", IMAGES, "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["proof"]["masked"], found["parity"]["images"]) == (0, True, 8)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["driver-id-host.edgemask", "report.md"]
    shown = run("build", EXAMPLE, "--target", "host")
    assert (shown.code, found["payload_digest"] in shown.out) == (0, True)
    assert (tmp_path / "build" / "host" / "driver-id-host.edgemask").is_file()


BAKED = "masked.onnx"


@pytest.fixture
def folder(tmp_path: Path, bake_once: Bake) -> Path:
    """Good and bad files, by the names that the cases below use."""
    whole = FLOAT.read_bytes()
    files = {
        "model.onnx": whole,
        BAKED: bake_once("torch_nchw.onnx", "jpeg").read_bytes(),
        "noisy.onnx": bake_once("torch_nchw.onnx", "noise").read_bytes(),
        "text.onnx": b"this is no model, though it is called one",
        "empty.onnx": b"",
        "cut.onnx": whole[: len(whole) // 2],
        "text.tflite": b"this is no model, though it is called one",
        "cut.tflite": QUANTISED.read_bytes()[:9000],
        "empty.tflite": b"",
        "text.png": b"this is no picture",
        "cut.png": SHIRT.read_bytes()[:60],
        "bad.toml": b"schema = 1\nname = 'x'\n[model]\nfile = 'model.onnx'\n[[steps]]\nkind = 'jpg'\n",
        "qdq.toml": f"schema = 1\nname = 'x'\n[model]\nfile = '{FOLDER / 'qdq.onnx'}'\n[frame]\n"
        "width = 32\nheight = 32\ncolour = 'rgb'\n[[steps]]\nkind = 'normalise'\n".encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bare").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("bake model.onnx -o out.onnx --mask jpg", "unknown mask 'jpg'\nhint: did you mean 'jpeg'?"),
        ("bake model.onnx -o out.onnx --mask jpeg:qualty=5", "$.qualty: unknown key; allowed: quality, subsampling"),
        ("bake model.onnx -o out.onnx --mask jpeg:qualty=5", "did you mean 'quality'?"),
        ("bake model.onnx -o out.onnx --mask jpeg:quality=0", "$.quality: value 0; allowed: 1 to 100"),
        ("bake model.onnx -o out.onnx --mask jpeg:quality=high", '$.quality: value "high"; allowed: int'),
        ("bake model.onnx -o out.onnx --mask jpeg:quality", "'quality' is not NAME=VALUE"),
        ("bake model.onnx -o out.onnx --mask noise:strength=nan", "$.strength: value NaN; allowed: 0.5 to 64"),
        ("bake model.onnx -o out.onnx --mask softmax", "unknown mask 'softmax'"),
        ("bake model.onnx -o out.onnx --mask thermometer", "the model's input 'image' takes 3 channels"),
        ("bake model.onnx -o out.onnx --mask feature-squeeze:squeezer=noise", "cannot squeeze with noise"),
        ("bake model.pth -o out.onnx", "model.pth: weights, or a pickle that could run anything"),
        ("bake model.onnx -o out", "'' is no format of a baked model"),
        ("bake model.onnx -o model.onnx --mask jpeg", "model.onnx is the trained model itself"),
        ("bake model.onnx -o nowhere/out.onnx", "nowhere/out.onnx: cannot write: No such file or directory"),
        ("bake missing.onnx -o out.onnx", "missing.onnx: cannot read: No such file or directory"),
        ("bake bare -o out.onnx", "bare: a folder without saved_model.pb is no model"),
        ("bake text.png -o out.onnx", "'.png' is no model format"),
        ("bake text.onnx -o out.onnx", "no sound ONNX model"),
        ("bake empty.onnx -o out.onnx", "no sound ONNX model"),
        ("bake cut.onnx -o out.onnx", "no sound ONNX model"),
        ("bake text.tflite -o out.tflite", "no sound TFLite model"),
        ("bake empty.tflite -o out.tflite", "no sound TFLite model"),
        ("bake cut.tflite -o out.tflite", "no sound TFLite model"),
        (f"bake {BAKED} -o out.onnx", f"{BAKED} is baked already"),
        ("bake noisy.onnx -o out.onnx", "noisy.onnx is baked already"),
        (f"init {BAKED} -o out.toml", f"{BAKED} is baked already"),
        (f"bake {FOLDER / 'two_inputs.onnx'} -o out.onnx", "the model has 2 inputs (left, right)"),
        ("bake -o out.onnx", "neither a model nor a recipe is given"),
        ("bake model.onnx --recipe qdq.toml -o out.onnx", "model.onnx is not the recipe's model"),
        ("bake --recipe bad.toml -o out.onnx", "$.steps[0].kind: value 'jpg'"),
        ("bake --recipe missing.toml -o out.onnx", "missing.toml: cannot read"),
        ("inspect text.onnx", "no sound ONNX model"),
        ("inspect missing.tflite", "cannot read"),
        ("verify model.onnx", "was not baked by edgemask"),
        (f"verify {BAKED} --source {FOLDER / 'qdq.onnx'}", "was not baked from"),
        (f"verify {BAKED} --recipe qdq.toml", "was not baked from"),
        (f"verify {BAKED} --images missing", "missing: no such file or folder"),
        (f"verify {BAKED} --images bare", "no images in this folder"),
        (f"verify {BAKED} --images text.png", "text.png: not a readable image"),
        ("predict model.onnx text.png", "was not baked by edgemask"),
        (f"predict {BAKED} {SHIRT} text.png", "text.png: not a readable image"),
        (f"predict {BAKED} {SHIRT} cut.png", "cut.png: not a readable image"),
        (f"predict {BAKED} missing.png", "missing.png: cannot read"),
        ("init model.onnx -o nowhere/edgemask.toml", "cannot write"),
        ("init text.onnx", "no sound ONNX model"),
        (f"build {EXAMPLE} --target jetsn -o out", "unknown target 'jetsn'\nhint: did you mean 'jetson'?"),
        ("build bad.toml --target host -o out", "$.steps[0].kind: value 'jpg'"),
        (f"build {EXAMPLE} --target host -o text.png", "text.png: cannot be made a folder: File exists"),
        (f"build {EXAMPLE} --target host -o out --images bare", "no images in this folder"),
    ],
)
def test_bad_input_is_one_clear_error(words: str, problem: str, run: Run, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = run(*words.split(" "))
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert [line.split(":")[0] for line in ended.err.splitlines() if line.startswith(("error", "Traceback"))] == [
        "error"
    ]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "words",
    ["bake model.onnx", "bakes", "bake --masks jpeg", "build x.toml", "inspect", "verify", "predict x.onnx", "-x", ""],
)
def test_usage_errors_end_with_two(words: str, run: Run) -> None:
    ended = run(*words.split())
    assert ended.code == 2
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (UserError("no"), 2), (ValueError("bug"), 1)])
def test_how_an_error_ends_the_command(
    error: BaseException, code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(edgemask, "inspect", raises, raising=False)
    ended = run("inspect", "x.onnx")
    assert ended.code == code
    assert ("Traceback" in ended.err) is (code == 1)


LABEL_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 300),
        st.sampled_from([10**400, -(10**400), 10**300, 1e308, 5e-324]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from("jpeg input top-k mask frame output wrap model uint8 NCHW raw top-indices ../x".split()),
        st.text(max_size=4),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a label."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in items for place in places(entry, (*path, key)))]


def replaced(value: Any, path: Sequence[Any], new: Any, how: str) -> Any:
    """The label with the value at `path` replaced, removed or doubled."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) > 1 or how == "replace":
        copy[path[0]] = replaced(value[path[0]], path[1:], new, how)
    elif how == "remove":
        del copy[path[0]]
    elif isinstance(copy, list):
        copy.insert(path[0], copy[path[0]])
    else:
        copy[f"{path[0]}s"] = copy[path[0]]
    return copy


def asked_everything(path: Path) -> None:
    """Each of the readers gives an answer or a UserError."""
    for ask in (
        lambda: edgemask.inspect(path),
        lambda: edgemask.verify(path),
        lambda: edgemask.verify(path, source=FOLDER / path.name),
        lambda: list(edgemask.predict(path, [SHIRT])),
    ):
        with contextlib.suppress(UserError):
            assert ask()


def changed(label: Any, data: st.DataObject) -> Any:
    place, how = data.draw(st.sampled_from(places(label))), data.draw(st.sampled_from(["replace", "remove", "more"]))
    return replaced(label, place, data.draw(LABEL_VALUES), how)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_label_is_an_answer_or_a_user_error(data: st.DataObject, bake_once: Bake, tmp_path: Path) -> None:
    name = "torch_nchw.onnx"
    path = with_label(bake_once(name, "noise", "jpeg"), tmp_path / name, lambda label: changed(label, data))
    asked_everything(path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(data=st.data())
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_label_of_a_tflite_file_too(data: st.DataObject, bake_once: Bake, tmp_path: Path) -> None:
    name = "keras_int8.tflite"
    path = with_label(bake_once(name, "jpeg"), tmp_path / name, lambda label: changed(label, data))
    asked_everything(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema": 1}', '{"a": 1, "a": 2}', "[" * 9000, "NaN"])
def test_a_label_that_is_no_label(text: str, run: Run, bake_once: Bake, tmp_path: Path) -> None:
    path = with_label(bake_once("torch_nchw.onnx", "jpeg"), tmp_path / "x.onnx", lambda _: text)
    for words in (["inspect", path], ["verify", path], ["predict", path, SHIRT]):
        ended = run(*words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {path}: edgemask: ")


def test_a_label_with_a_step_of_another_version(run: Run, bake_once: Bake, tmp_path: Path) -> None:
    def renamed(label: Any) -> Any:
        label["chain"][0]["kind"] = "jpeg-2030"
        return label

    path = with_label(bake_once("torch_nchw.onnx", "jpeg"), tmp_path / "x.onnx", renamed)
    ended = run("verify", path)
    assert (ended.code, "'jpeg-2030' of role 'mask' is not known here" in ended.err) == (2, True)


def test_a_picture_of_another_size_is_resized_and_said_so(run: Run, bake_once: Bake, tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 70, 3), 9, np.uint8)).save(tmp_path / "plain.png")
    ended = run("predict", bake_once("torch_nchw.onnx", "jpeg"), tmp_path / "plain.png", "--json")
    assert json.loads(ended.out)["resized_from"] == [50, 70]
