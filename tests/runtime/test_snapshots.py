"""Pictures of what mattered."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.answers import Reading
from edgemask_runtime.detections import Detection
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Colour, Format
from edgemask_runtime.images import in_format, picture_of, recolour
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import FrameInput, Manifest

from .answering import DIGEST, answer, opened
from .tiny import manifest_of

SUSPICIOUS = Reading((Guess(1, "bob", 0.75),), True, {})
CALM = Reading((Guess(1, "bob", 0.75),), False, {})
GRAY = np.arange(48, dtype=np.uint8).reshape(8, 6, 1)


def snapshots(folder: Path, manifest: Manifest | None = None, **settings: Any) -> Any:
    return opened("snapshots", manifest, **{"folder": folder, "every_s": 0, "min_free_mb": 0, **settings})


def sidecars(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_a_suspicious_frame_lies_there_as_the_camera_gave_it(tmp_path: Path) -> None:
    sink = snapshots(tmp_path, format="png")
    sink.write(answer(1, CALM), GRAY)
    sink.write(answer(2, SUSPICIOUS), GRAY)
    sink.close()
    (told,) = sidecars(tmp_path)
    assert (told["reason"], told["frame"], told["digest"], told["suspicious"]) == ("suspicious", 2, DIGEST, True)
    assert told["top"][0]["label"] == "bob"
    with Image.open(tmp_path / told["picture"]) as image:
        assert np.array_equal(np.asarray(image), GRAY[..., 0])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("colour", ["rgb", "bgr", "rgba", "bgra", "gray", "nv12", "i420", "yuyv"])
@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_every_camera_s_format_shows_its_picture(colour: Colour, padding: int, matrix: str) -> None:
    with Image.open(Path(__file__).parents[1] / "images" / "rocket.jpg") as image:
        rgb = np.asarray(image.resize((64, 48)).convert("RGB"))
    coded = {"matrix": matrix, "range": "limited"} if colour in ("nv12", "i420", "yuyv") else {}
    plain = Format(64, 48, colour, None, **coded)  # type: ignore[arg-type]
    camera = dataclasses.replace(plain, stride=plain.row_bytes + padding if padding else None)
    source = rgb if coded else recolour(rgb if colour != "gray" else rgb[..., :1], colour)
    shown = picture_of(in_format(source, camera), camera)
    if not coded:
        assert np.array_equal(shown, rgb if colour != "gray" else rgb[..., :1])
        return
    assert shown.shape == rgb.shape
    assert np.abs(shown.astype(int) - _shared(rgb, camera)).mean() < 2


def _shared(rgb: Any, camera: Format) -> Any:
    """The picture with the colour differences that 4:2:0 or 4:2:2 leave, by Pillow's own YCbCr (BT.601, full range)."""
    yuv = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(float)
    rows, columns = (1, 2) if camera.colour == "yuyv" else (2, 2)
    blocks = yuv.reshape(48 // rows, rows, 64 // columns, columns, 3).mean((1, 3), keepdims=True)
    coarse = np.broadcast_to(blocks, (48 // rows, rows, 64 // columns, columns, 3)).reshape(yuv.shape)
    merged = np.concatenate([yuv[..., :1], coarse[..., 1:]], 2).round().astype(np.uint8)
    return np.asarray(Image.fromarray(merged, "YCbCr").convert("RGB")).astype(int)


def test_a_raw_frame_is_a_jpeg_that_others_read(tmp_path: Path) -> None:
    frame = FrameInput(64, 48, "nv12", None, "bt601", "full", name="frame", dtype="uint8", batch=None)
    manifest = dataclasses.replace(manifest_of(b"", "onnxruntime", False), frame=frame)
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = (200, 30, 30), (30, 30, 200)
    sink = snapshots(tmp_path, manifest, when=("always",), quality=95)
    sink.write(answer(1), in_format(rgb, frame))
    (told,) = sidecars(tmp_path)
    with Image.open(tmp_path / told["picture"]) as image:
        assert (image.format, image.size) == ("JPEG", (64, 48))
        assert np.abs(np.asarray(image).astype(int) - rgb).mean() < 3


def named(index: int, label: str, score: float, *, inside: str | None = None) -> Detection:
    recognised = None if inside is None else (Guess(0, inside, score),)
    return Detection(index, label, score, (0.0, 0.0, 1.0, 1.0), None, recognised)


@pytest.mark.parametrize(
    ("reading", "kept"),
    [
        (Reading((Guess(1, "bob", 0.75), Guess(2, "cid", 0.7)), None, {}), True),
        (Reading((Guess(2, "cid", 0.75), Guess(1, "bob", 0.7)), None, {}), False),
        (Reading((Guess(1, "bob", 0.4),), None, {}), False),
        (Reading((Guess(1, "bob", None),), None, {}), False),
        (Reading((), None, {}, (named(0, "car", 0.9), named(1, "bob", 0.6))), True),
        (Reading((), None, {}, (named(0, "face", 0.9, inside="bob"),)), True),
        (Reading((), None, {}, (named(0, "face", 0.9, inside="ann"),)), False),
    ],
)
def test_a_label_with_a_score_is_an_event(tmp_path: Path, reading: Reading, kept: bool) -> None:
    sink = snapshots(tmp_path, when=("labels",), labels=("bob",), min_score=0.5)
    sink.write(answer(1, reading), GRAY)
    assert [told["reason"] for told in sidecars(tmp_path)] == ["labels"] * kept


def test_labels_and_their_event_go_together(tmp_path: Path) -> None:
    for wrong in ({"labels": ("bob",)}, {"when": ("labels",)}):
        with pytest.raises(UserError, match="labels"):
            snapshots(tmp_path, **wrong)


def test_what_was_last_seen_before_there_was_no_answer(tmp_path: Path) -> None:
    sink = snapshots(tmp_path, when=("invalid",))
    sink.invalidate("starting")
    sink.write(answer(1), GRAY)
    sink.write(answer(2), GRAY)
    sink.invalidate("stalled")
    sink.invalidate("stalled")
    (told,) = sidecars(tmp_path)
    assert (told["reason"], told["invalid"], told["last"]["frame"]) == ("invalid", "stalled", 2)


def test_no_more_often_than_asked(tmp_path: Path) -> None:
    sink = snapshots(tmp_path, every_s=3600)
    for frame in range(5):
        sink.write(answer(frame, SUSPICIOUS), GRAY)
    assert [told["frame"] for told in sidecars(tmp_path)] == [0]


def noise(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (112, 92, 1), np.uint8)


def test_the_oldest_go_first_and_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    stranger = tmp_path / "holiday-1.png"
    stranger.write_bytes(bytes(50_000))
    sink = snapshots(tmp_path, max_mb=0.05)
    for frame in range(12):
        sink.write(answer(frame, SUSPICIOUS), noise(frame))
        ours = [path for path in tmp_path.iterdir() if path != stranger]
        assert sum(path.stat().st_size for path in ours) <= 50_000
        assert len(ours) % 2 == 0
    frames = sorted(told["frame"] for told in sidecars(tmp_path))
    assert frames == list(range(12 - len(frames), 12))
    assert 2 <= len(frames) < 12
    assert stranger.exists()


def test_what_an_earlier_run_left_counts_and_its_halves_are_removed(tmp_path: Path) -> None:
    sink = snapshots(tmp_path, max_mb=0.05)
    for frame in range(3):
        sink.write(answer(frame, SUSPICIOUS), noise(frame))
    old = sorted(tmp_path.iterdir())
    for path in old:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    half = tmp_path / f".{old[0].name}.4711.part"
    half.write_bytes(b"half")
    sink = snapshots(tmp_path, max_mb=0.05)
    assert not half.exists()
    for frame in range(3, 15):
        sink.write(answer(frame, SUSPICIOUS), noise(frame))
    assert not [path for path in old if path.exists()]


def test_on_a_disk_that_is_nearly_full_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = snapshots(tmp_path, min_free_mb=1)
    for frame in range(3):
        sink.write(answer(frame, SUSPICIOUS), GRAY)
    room = os.statvfs(tmp_path)

    def left(more: int) -> Any:
        blocks = (1_000_000 + more) // 512
        return lambda _: os.statvfs_result((room[0], 512, *room[2:4], blocks, *room[5:]))

    monkeypatch.setattr(os, "statvfs", left(600))
    sink.write(answer(3, SUSPICIOUS), GRAY)
    assert [told["frame"] for told in sidecars(tmp_path)] in ([1, 2, 3], [2, 3])


def test_a_full_disk_is_said_and_nothing_is_given_up_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = snapshots(tmp_path, min_free_mb=1)
    sink.write(answer(0, SUSPICIOUS), GRAY)
    room = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*room[:4], 0, *room[5:])))
    with pytest.raises(UserError, match="the disk is full"):
        sink.write(answer(3, SUSPICIOUS), GRAY)
    monkeypatch.undo()
    sink.write(answer(4, SUSPICIOUS), GRAY)
    assert [told["frame"] for told in sidecars(tmp_path)] == [0, 4]


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be made a folder"):
        snapshots(tmp_path / "taken")


def test_nothing_is_half_there_when_writing_fails(tmp_path: Path) -> None:
    sink = snapshots(tmp_path)
    original = answer(1, SUSPICIOUS)
    name = f"door-{original.captured_at.translate(str.maketrans('', '', '-:.'))}-1"
    (tmp_path / f"{name}.json").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        sink.write(original, GRAY)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]
