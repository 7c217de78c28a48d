"""A detector's boxes, cropped and recognised: a real bundle in a real bundle, on real engines."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.bundle import (
    Bundle,
    FrameInput,
    Manifest,
    OutputRecord,
    RecogniserRecord,
    file_records,
    pack_bundle,
    write_bundle,
)
from edgemask_runtime.cascade import open_bundle
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import YUV, Format, colours_of, planes_of
from edgemask_runtime.images import in_format, recolour
from edgemask_runtime.recognised import BOX
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.worker_process import ModelOptions

from . import tiny_onnx
from .running import run_daemon, running_daemon
from .tiny import CLASSES, SHAPE, manifest_of, model_bytes, picture, write_pgm

INNER = "recogniser.edgemask"
FRAME = (40, 30, 1)
BOXES = ((4.0, 4.0, 10.0, 12.0), (20.0, 8.0, 26.0, 16.0), (0.0, 20.0, 6.0, 28.0))
"""As large as the recogniser's frame, 6 x 8, so that a crop is what was painted."""
RECORD = RecogniserRecord(INNER, None, 0.0, (0.0, 0.0), 2)


def detector(batch: int | None) -> Manifest:
    """A manifest of the tiny detector, which finds its three boxes in every frame, the third one of class 1."""
    return dataclasses.replace(
        manifest_of(b"", "onnxruntime", False),
        name="finder",
        frame=FrameInput(FRAME[1], FRAME[0], "gray", name="frame", dtype="uint8", batch=batch),
        outputs=(
            OutputRecord("boxes", "float32", (batch, 3, 4), "boxes"),
            OutputRecord("scores", "float32", (batch, 3), "scores"),
            OutputRecord("classes", "int32", (batch, 3), "classes"),
            OutputRecord("count", "int32", (batch, 1), "count"),
        ),
        labels=("face", "bag"),
    )


@pytest.fixture
def inner(weights: np.ndarray[Any, Any]) -> tuple[Manifest, dict[str, bytes]]:
    model = model_bytes(weights, "onnxruntime", False)
    manifest = manifest_of(model, "onnxruntime", False)
    return manifest, {manifest.model.file: model}


def joined(
    path: Path, inner: tuple[Manifest, dict[str, bytes]], record: RecogniserRecord = RECORD, **changes: Any
) -> Path:
    """The detector's bundle with the recogniser's in it."""
    shape = changes["frame"].shape if "frame" in changes else FRAME
    model = tiny_onnx.detector(BOXES, (0.9, 0.8, 0.7), (0, 0, 1), shape)
    files = {"model.onnx": model, INNER: pack_bundle(*inner, {})}
    manifest = dataclasses.replace(detector(None), recogniser=record, files=file_records(files), **changes)
    write_bundle(path, manifest, files, {})
    return path


def scene(*answers: int) -> np.ndarray[Any, Any]:
    """A frame with the recogniser's pictures of these classes in its boxes."""
    frame = np.full(FRAME, 10, np.uint8)
    for (left, top, *_), answer in zip(BOXES, answers, strict=False):
        frame[int(top) : int(top) + SHAPE[0], int(left) : int(left) + SHAPE[1]] = picture(answer)
    return frame


def test_each_box_is_recognised(tmp_path: Path, inner: Any) -> None:
    served = open_bundle(Bundle.open(joined(tmp_path / "two.edgemask", inner)))
    frames = np.stack([scene(1, 3), scene(2, 0)])
    outputs = served.predict(frames)
    assert outputs[BOX].tolist() == [[0, 1], [0, 1]]
    for row, names in enumerate((("bob", "dee"), ("cid", "ann"))):
        found = outputs.read(row).detections
        assert found is not None
        assert [d.recognised[0].label for d in found[:2] if d.recognised] == list(names)
        assert [d.label for d in found] == ["face", "face", "bag"]
        assert found[2].recognised is None


@pytest.mark.parametrize(
    "camera",
    [
        Format(30, 40, "nv12", None, "bt601", "full"),
        Format(30, 40, "i420", 36, "bt709", "limited"),
        Format(30, 40, "yuyv", 64, "bt709", "full"),
        Format(30, 40, "bgra", 128),
        Format(30, 40, "gray", 32),
    ],
    ids=lambda camera: camera.colour,
)
def test_crops_are_cut_from_every_format(tmp_path: Path, inner: Any, camera: Format) -> None:
    frame = FrameInput(**dataclasses.asdict(camera), name="frame", dtype="uint8", batch=None)
    served = open_bundle(Bundle.open(joined(tmp_path / "two.edgemask", inner, frame=frame)))
    shown = in_format(recolour(scene(1, 3), "rgb" if camera.colour in YUV else camera.colour), camera)
    outputs = served.predict(shown[None])
    found = outputs.read().detections
    assert found is not None
    assert [d.recognised[0].label for d in found[:2] if d.recognised] == ["bob", "dee"]


@pytest.mark.parametrize(("matrix", "span"), [("bt601", "limited"), ("bt709", "full")])
@pytest.mark.parametrize("colour", sorted(YUV))
def test_a_frames_planes_show_its_colours(colour: Any, matrix: Any, span: Any) -> None:
    """Colours that RGB has, one for all pixels that share differences, come back to within one level."""
    camera = Format(64, 48, colour, 140, matrix, span)
    rgb = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    luma, chroma = planes_of(in_format(rgb, camera), camera)
    rows, columns = YUV[colour]
    picture = np.concatenate([luma, chroma.repeat(rows, 0).repeat(columns, 1)], 2)
    apart = np.abs(colours_of(picture, camera).astype(int) - rgb)
    assert apart.max() <= 3
    assert apart.mean() < 1


def test_only_the_label_asked_is_recognised(tmp_path: Path, inner: Any) -> None:
    record = dataclasses.replace(RECORD, label="bag")
    served = open_bundle(Bundle.open(joined(tmp_path / "two.edgemask", inner, record)))
    outputs = served.predict(scene(1, 1, 2)[None])
    assert outputs[BOX].tolist() == [[2, -1]]
    found = outputs.read().detections
    assert found is not None
    assert found[2].recognised is not None
    assert found[2].recognised[0].label == "cid"
    assert not np.any(outputs["recognised.probabilities"][0, 1])


def test_the_manifest_for_clients_states_both(tmp_path: Path, inner: Any) -> None:
    path = joined(tmp_path / "two.edgemask", inner)
    served = open_bundle(Bundle.open(path))
    outputs = served.predict(scene(0)[None])
    for record in served.manifest.outputs:
        assert outputs[record.name].shape[1:] == tuple(record.shape[1:])
        assert outputs[record.name].dtype == record.dtype
    assert len(served.digest) == 64


def test_a_bundle_in_a_bundle_in_a_bundle_is_refused(tmp_path: Path, inner: Any) -> None:
    once = joined(tmp_path / "once.edgemask", inner)
    bundle = Bundle.open(once)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    twice = joined(tmp_path / "twice.edgemask", (bundle.manifest, files))
    with pytest.raises(UserError, match="a recogniser has none of its own"):
        open_bundle(Bundle.open(twice))


def test_a_bundle_without_the_file_it_names_is_refused(tmp_path: Path, inner: Any) -> None:
    record = dataclasses.replace(RECORD, file="other.edgemask")
    path = joined(tmp_path / "two.edgemask", inner, record)
    with pytest.raises(UserError, match=r"\$\.recogniser\.file: value 'other\.edgemask'; allowed: model\.onnx, recog"):
        Bundle.open(path)


def test_the_daemon_answers_with_names(tmp_path: Path, inner: Any) -> None:
    path, frames = joined(tmp_path / "two.edgemask", inner), tmp_path / "frames"
    frames.mkdir()
    for index, answers in enumerate(((1, 3), (2, 0))):
        write_pgm(frames / f"{index}.pgm", scene(*answers))
    done = run_daemon("run", path, "--source", frames, "--fps", "0", "--listen", "none")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    names = [[d["recognised"][0]["label"] for d in a["detections"] if d["recognised"]] for a in answers]
    assert names == [["bob", "dee"], ["cid", "ann"]]


def test_clients_get_the_crops_outputs(tmp_path: Path, inner: Any) -> None:
    path = joined(tmp_path / "two.edgemask", inner)
    frame = {"name": "frame", "datatype": "UINT8", "shape": [1, *FRAME], "data": scene(3, 1).ravel().tolist()}
    with running_daemon(path) as daemon:
        with urllib.request.urlopen(f"{daemon.url}/v2/models/finder") as answer:
            names = [output["name"] for output in json.load(answer)["outputs"]]
        body = json.dumps({"inputs": [frame]}).encode()
        with urllib.request.urlopen(f"{daemon.url}/v2/models/finder/infer", body) as answer:
            outputs = {output["name"]: output for output in json.load(answer)["outputs"]}
    assert names == list(outputs)
    assert outputs["recognised.probabilities"]["shape"] == [1, 2, CLASSES]
    best = np.reshape(outputs["recognised.probabilities"]["data"], (2, CLASSES)).argmax(1)
    assert best.tolist() == [3, 1]


def test_a_cascade_in_a_process_of_its_own_is_read_alike(
    inner: tuple[Manifest, dict[str, bytes]], tmp_path: Path
) -> None:
    path = joined(tmp_path / "two.edgemask", inner)
    frames = np.random.default_rng(0).integers(0, 256, (2, *FRAME), np.uint8)
    direct = open_bundle(Bundle.open(path))
    with Supervisor([ModelOptions("two", path)]) as running:
        remote = running.models["two"]
        assert remote.about == direct.about
        outputs, expected = remote.predict(frames), direct.predict(frames)
        for row in range(2):
            reading = outputs.read(row)
            assert reading == expected.read(row)
            assert any(detection.recognised for detection in reading.detections or ())
