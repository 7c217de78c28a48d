"""A camera's own format all the way: recipe, baked file, images, bundle, daemon on a video, and the protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import edgemask
from edgemask.errors import UserError
from edgemask.recipe import read_recipe
from edgemask.suggest import parse_frame
from edgemask_runtime.api.doors import Door
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import decode
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.formats import Format
from edgemask_runtime.images import read_frame
from edgemask_runtime.predictor import Predictor

from .files import FOLDER
from .pictures import FOLDER as IMAGES

CAT = IMAGES / "cat.png"
CASES = [
    ("torch_nchw.onnx", "nv12:96x64,stride=128,matrix=bt709,range=full"),
    ("keras_float.tflite", "yuyv:96x64,matrix=bt601,range=limited"),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[1].partition(":")[0])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A recipe as `init` writes it, built with real images."""
    model, frame = request.param
    folder = tmp_path_factory.mktemp("camera")
    recipe = edgemask.init(FOLDER / model, folder / "edgemask.toml", masks=["jpeg"], frame=frame)
    assert read_recipe(recipe).frame == parse_frame(frame)
    built = edgemask.build(recipe, "host", folder, images=IMAGES)
    assert built.parity.passed
    assert built.parity.images == 8
    assert built.proof.steps["1.rgb"]
    assert built.proof.cut_by == ("3.jpeg",)
    return Bundle.open(built.bundle)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "cat.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        pixels = read_frame(CAT, Format(96, 64, "rgb")).pixels
        for shift in range(6):
            picture = av.VideoFrame.from_ndarray(np.roll(pixels, 8 * shift, 1), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_the_manifest_states_the_format(bundle: Bundle) -> None:
    frame = bundle.manifest.frame
    assert (frame.raw, frame.height, frame.width) == (True, 64, 96)
    assert frame.shape == ((96, 128) if frame.colour == "nv12" else (64, 192))
    assert Door("camera", Predictor.open(bundle)).metadata()["inputs"][0]["shape"][1:] == list(frame.shape)


def test_the_daemon_answers_a_video_as_the_predictor_answers_its_planes(bundle: Bundle, video: Path) -> None:
    words = ["run", str(bundle.path), "--source", str(video), "--fps", "0", "--listen", "none"]
    command = [sys.executable, "-m", "edgemask_runtime.daemon", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 6
    expected = Predictor.open(bundle).predict(read_frame(CAT, bundle.manifest.frame).pixels[None])
    name = "probabilities"
    np.testing.assert_allclose(answers[0]["outputs"][name], expected[name][0], atol=0.05)


def test_clients_send_the_raw_buffer(bundle: Bundle) -> None:
    frame = bundle.manifest.frame
    buffer = read_frame(CAT, frame).pixels[None]
    entry: dict[str, Any] = {"name": "frame", "datatype": "UINT8", "shape": list(buffer.shape)}
    entry["parameters"] = {"binary_data_size": buffer.nbytes}
    header = json.dumps({"inputs": [entry]}).encode()
    request = decode(header + buffer.tobytes(), str(len(header)), bundle.manifest)
    np.testing.assert_array_equal(request.frames, buffer)
    entry["shape"] = [1, 64, 96, 3]
    header = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(RequestError, match="takes shape"):
        decode(header + buffer.tobytes(), str(len(header)), bundle.manifest)


def test_images_are_answered_in_the_cameras_format(tmp_path: Path) -> None:
    """A picture of one gray has the same pixels in every format, so the answer is the RGB file's."""
    gray = tmp_path / "gray.ppm"
    gray.write_bytes(b"P6 96 64 255\n" + bytes([126]) * 96 * 64 * 3)
    answers = []
    for frame in ("rgb:96x64", "nv12:96x64,range=full", "i420:96x64,stride=100,range=full", "bgra:96x64,stride=400"):
        out = tmp_path / "masked.onnx"
        edgemask.bake(FOLDER / "torch_nchw.onnx", out, frame=frame, masks=["median"])
        answers.append(next(edgemask.predict(out, [gray]))["outputs"]["logits"])
    np.testing.assert_array_equal(answers, [answers[0]] * len(answers))


def test_a_mask_cannot_stand_before_the_step_that_decodes(tmp_path: Path) -> None:
    recipe = edgemask.init(FOLDER / "torch_nchw.onnx", tmp_path / "edgemask.toml", frame="nv12:96x64")
    text = recipe.read_text().replace('kind = "rgb"\nchroma = "nearest"', 'kind = "jpeg"')
    recipe.write_text(text)
    with pytest.raises(UserError, match=r"step 1 \(jpeg\) needs an image") as caught:
        edgemask.bake(recipe=recipe)
    assert caught.value.hint == "put an rgb, bgr or gray step before it"


@pytest.mark.parametrize("step", ["", '[[steps]]\nkind = "resize-planes"\nwidth = 32\nheight = 32\n'])
def test_a_model_is_not_fed_what_nothing_decoded(tmp_path: Path, step: str) -> None:
    recipe = tmp_path / "edgemask.toml"
    model = FOLDER / "keras_int8.tflite"
    frame = '[frame]\nwidth = 96\nheight = 64\ncolour = "nv12"\n'
    recipe.write_text(f'schema = 1\nname = "raw"\n[model]\nfile = "{model}"\n{frame}{step}')
    with pytest.raises(UserError, match=r"gives .* the model takes colours or gray") as caught:
        edgemask.bake(recipe=recipe)
    assert caught.value.hint == "put an rgb, bgr or gray step before it"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nv12:640", "is no frame"),
        ("nv21:640x480", "did you mean 'nv12'"),
        ("nv12:640x480,strid=700", "did you mean 'stride'"),
        ("nv12:640x480,matrix=bt2020", "allowed: bt601, bt709"),
        ("nv12:641x480", "width is 641"),
        ("rgb:640x480,range=full", "range is 'full'"),
        ("i420:640x480,stride=600", "stride is 600"),
    ],
)
def test_faults_of_a_frame_are_said(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        edgemask.bake(FOLDER / "torch_nchw.onnx", frame=text)
    assert problem in f"{caught.value.message} {caught.value.hint}"


def test_a_recipes_faulty_frame_is_named_with_its_place(tmp_path: Path) -> None:
    recipe = edgemask.init(FOLDER / "torch_nchw.onnx", tmp_path / "edgemask.toml", frame="nv12:96x64,stride=128")
    recipe.write_text(recipe.read_text().replace("height = 64", "height = 63").replace("stride = 128", "stride = 90"))
    with pytest.raises(UserError) as caught:
        read_recipe(recipe)
    assert caught.value.message.splitlines() == [
        f"{recipe}: $.frame.height: value 63; allowed: an even number for nv12",
        f"{recipe}: $.frame.stride: value 90; allowed: 96 or more for nv12 of width 96",
    ]


def test_a_recipe_and_a_frame_are_too_much(tmp_path: Path) -> None:
    recipe = edgemask.init(FOLDER / "torch_nchw.onnx", tmp_path / "edgemask.toml")
    with pytest.raises(UserError, match="states its frame itself"):
        edgemask.bake(recipe=recipe, frame="nv12:96x64")
