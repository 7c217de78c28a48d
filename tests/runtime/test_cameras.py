from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.bundle import FrameInput
from edgemask_runtime.cameras import open_source
from edgemask_runtime.errors import UserError
from edgemask_runtime.frames import Shot


def graph_frame(width: int, height: int, colour: Any, **coding: Any) -> FrameInput:
    return FrameInput(width, height, colour, **coding, name="frame", dtype="uint8", batch=None)


GRAY = graph_frame(48, 32, "gray")
RGB = graph_frame(48, 32, "rgb")
BGR = graph_frame(48, 32, "bgr")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, 20 a second; frame k is blue with a red of 20 k."""
    path = tmp_path_factory.mktemp("video") / "drive.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(10):
            pixels = np.zeros((64, 96, 3), np.uint8)
            pixels[:] = (20 * number, 0, 200)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_video_gives_every_frame_in_the_graphs_size_and_colour(video: Path) -> None:
    camera = open_source(video, RGB)
    shots = list(camera)
    assert camera.fps == 20
    assert [shot.name for shot in shots] == [f"drive.avi#{number}" for number in range(10)]
    red, _, blue = shots[6].read().mean(axis=(0, 1))
    assert abs(red - 120) < 8
    assert abs(blue - 200) < 8
    swapped = list(open_source(video, BGR))[6].read()
    np.testing.assert_array_equal(swapped[:, :, ::-1], shots[6].read())
    assert next(iter(open_source(video, GRAY, fps=3))).read().shape == (32, 48, 1)


def test_a_video_can_loop_and_be_closed(video: Path) -> None:
    camera = open_source(video, RGB, loop=True)
    names = []
    for shot in camera:
        names.append(shot.name)
        if len(names) == 15:
            camera.close()
    assert names[10] == "drive.avi#0"
    assert len(names) == 20


def test_a_broken_stretch_gives_shots_that_fail(video: Path, tmp_path: Path) -> None:
    content = bytearray(video.read_bytes())
    fourth = [at for at in range(len(content)) if content.startswith(b"\xff\xd8", at)][3]
    content[fourth : fourth + 600] = bytes(600)
    (tmp_path / "broken.avi").write_bytes(content)
    outcomes = [outcome(shot) for shot in open_source(tmp_path / "broken.avi", RGB)]
    assert outcomes == [(32, 48, 3)] * 3 + ["this picture does not decode"] + [(32, 48, 3)] * 6


def outcome(shot: Shot) -> object:
    try:
        return shot.read().shape
    except UserError as error:
        return error.message.partition(":")[0]


def test_what_is_no_video_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(UserError, match="not a readable video"):
        open_source(tmp_path / "text.mp4", RGB)


def test_without_pyav_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError) as caught:
        open_source(video, RGB)
    assert caught.value.hint == "pip install 'edgemask-runtime[video]'"


def test_images_of_another_size_are_resized_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (96, 64), (255, 0, 0)).save(tmp_path / name)
    with caplog.at_level(logging.WARNING, "edgemaskd"):
        shots = list(open_source(tmp_path, RGB))
    assert shots[0].read().shape == (32, 48, 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.png'}: 96x64, resized to the graph's 48x32"
    ]


def test_an_unreadable_image_stops_the_start(faces: Path) -> None:
    (faces / "3.pgm").write_bytes(b"P5 no")
    with pytest.raises(UserError, match=r"3\.pgm"):
        open_source(faces, graph_frame(6, 8, "gray"))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(tmp_path / "absent", RGB)


def test_one_image_is_a_camera(faces: Path) -> None:
    camera = open_source(faces / "0.pgm", graph_frame(6, 8, "gray"))
    assert [shot.name for shot in camera] == ["0.pgm"]
    assert camera.fps == 10


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame of 50 x 36 in FFV1, coded as limited BT.601: its width is no multiple of what FFmpeg aligns rows to."""
    path = tmp_path_factory.mktemp("lossless") / "drive.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 50, 36, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 5, 1
        picture = av.VideoFrame.from_ndarray(np.concatenate(planes()).reshape(54, 50), format="yuv420p")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def planes() -> list[np.ndarray[Any, Any]]:
    """Y, U and V of the lossless frame, flat: noise, and colours that change slowly and that RGB has."""
    u, v = np.meshgrid(np.linspace(100, 150, 25), np.linspace(110, 160, 18))
    luma = np.random.default_rng(7).integers(70, 180, 50 * 36, np.uint8)
    return [luma, np.rint(u).astype(np.uint8).ravel(), np.rint(v).astype(np.uint8).ravel()]


@pytest.mark.parametrize("stride", [None, 64])
@pytest.mark.parametrize("colour", ["nv12", "i420"])
def test_a_video_gives_its_own_planes_untouched(lossless: Path, colour: str, stride: int | None) -> None:
    wanted = graph_frame(50, 36, colour, stride=stride, matrix="bt601", range="limited")
    buffer = next(iter(open_source(lossless, wanted))).read()
    assert buffer.shape == wanted.shape
    luma, u, v = planes()
    np.testing.assert_array_equal(buffer[:36, :50].ravel(), luma)
    if colour == "nv12":
        chroma = buffer[36:, :50].reshape(18, 25, 2)
        found = [chroma[..., 0].ravel(), chroma[..., 1].ravel()]
    else:
        found = [plane[:, :25].ravel() for plane in buffer[36:].reshape(2, 18, -1)]
    np.testing.assert_array_equal(found, [u, v])


def test_a_video_gives_yuyv_with_its_own_luma(lossless: Path) -> None:
    wanted = graph_frame(50, 36, "yuyv", stride=128, matrix="bt601", range="limited")
    buffer = next(iter(open_source(lossless, wanted))).read()
    np.testing.assert_array_equal(buffer[:, :100:2].ravel(), planes()[0])
    assert not buffer[:, 100:].any()


def test_a_video_is_coded_anew_where_the_graph_takes_another_matrix_and_range(lossless: Path) -> None:
    """FFmpeg's own RGB says what the frame shows; both codings must show it."""
    shown = next(iter(open_source(lossless, graph_frame(50, 36, "rgb")))).read().astype(float)
    for matrix, span, factors in (("bt601", "limited", (16, 1.164, 1.596)), ("bt709", "full", (0, 1.0, 1.5748))):
        wanted = graph_frame(50, 36, "nv12", matrix=matrix, range=span)
        buffer = next(iter(open_source(lossless, wanted))).read().astype(float)
        red = (buffer[:36] - factors[0]) * factors[1]
        red += factors[2] * (buffer[36:, 1::2] - 128).repeat(2, 0).repeat(2, 1)
        assert np.abs(red - shown[..., 0]).mean() < 1.5


def test_a_folder_gives_the_graphs_format(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), (255, 0, 0)).save(tmp_path / "red.png")
    wanted = graph_frame(48, 32, "nv12", stride=64, matrix="bt601", range="full")
    buffer = next(iter(open_source(tmp_path, wanted))).read()
    assert buffer.shape == (48, 64)
    assert (buffer[:32, :48] == 76).all()
    assert (buffer[32:, :48:2] == 85).all()
    assert (buffer[32:, 1:48:2] == 255).all()
    assert not buffer[:, 48:].any()
