"""Everything above the kernel, with recorded buffers; what the kernel itself is asked, against its own header."""

from __future__ import annotations

import errno
import io
import shutil
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.cameras import SourceLost, camera_settings, open_camera, source_for
from edgemask_runtime.cameras.negotiation import Mode, best, remark
from edgemask_runtime.cameras.pattern import PatternCamera, PatternSettings, number_in
from edgemask_runtime.cameras.v4l2 import V4l2Camera, V4l2Settings
from edgemask_runtime.cameras.video4linux import REQUESTS, Filled, Layout, Sizes
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format, colours_of, planes_of
from edgemask_runtime.images import decode_image

from .test_cameras import graph_frame

W, H = 96, 64
HEADER = Path("/usr/include/linux/videodev2.h")


def shown(number: int, colour: Any = "yuyv", width: int = W, height: int = H, **coding: Any) -> Any:
    frame = graph_frame(width, height, colour, **coding)
    return PatternCamera(PatternSettings(), frame).drawn(number)


def jpeg(number: int, width: int = W, height: int = H, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(shown(number, "rgb", width, height)).save(content, "jpeg", quality=92, **options)
    return content.getvalue()


class Recorded:
    """A device whose frames are given: what it was asked is noted, a None is an unplugged cable."""

    driver, card, bus = "recorded", "A camera", "usb-1"

    def __init__(self, fourcc: str = "YUYV", frames: Any = (), size: tuple[int, int] = (W, H), **layout: Any) -> None:
        self.fourcc, self.size = fourcc, size
        self.layout = {"stride": 2 * size[0], "matrix": "bt601", "range": "limited"} | layout
        self.frames = deque(frames)
        self.free: set[int] = set()
        self.sequence = 0
        self.closed = 0
        self.woken = threading.Event()

    def fourccs(self) -> list[str]:
        return ["H264", self.fourcc]

    def sizes(self, fourcc: str) -> list[Sizes]:
        return [Sizes(self.size, self.size, (1, 1))] if fourcc == self.fourcc else []

    def rates(self, *_: Any) -> tuple[float, ...]:
        return (15.0, 30.0)

    def set_format(self, fourcc: str, width: int, height: int) -> Layout:
        assert (fourcc, width, height) == (self.fourcc, *self.size)
        return Layout(fourcc, width, height, **self.layout)

    def set_rate(self, fps: float) -> None:
        self.asked_fps = fps

    def start(self, buffers: int) -> list[Any]:
        self.memory = [np.zeros(5 * self.size[0] * self.size[1], np.uint8) for _ in range(buffers)]
        self.free = set(range(buffers))
        return self.memory

    def take(self, timeout_s: float) -> Filled | None:
        assert not self.closed
        if not self.frames:
            return None if self.woken.wait(timeout_s) else timed_out()
        frame, step, broken = self.frames.popleft()
        if frame is None:
            raise OSError(errno.ENODEV, "No such device")
        index = self.free.pop()
        content = np.frombuffer(frame, np.uint8)
        self.memory[index][: content.size] = content
        self.sequence += step
        return Filled(index, content.size, 1_000_000_000 * self.sequence, self.sequence, broken)

    def give_back(self, index: int) -> None:
        assert not self.closed
        assert index not in self.free
        self.free.add(index)

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        self.closed += 1


def timed_out() -> None:
    raise TimeoutError(errno.ETIMEDOUT, "no frame for 1 s")


def opened(device: Recorded, frame: Any, **settings: Any) -> V4l2Camera:
    return V4l2Camera(V4l2Settings(**settings), frame, lambda _: device)


def whole(pixels: Any) -> tuple[Any, int, bool]:
    return np.ascontiguousarray(pixels).tobytes(), 1, False


YUYV = graph_frame(W, H, "yuyv")


def test_a_frame_in_the_graphs_format_is_the_drivers_buffer_itself() -> None:
    device = Recorded(frames=[whole(shown(n)) for n in range(7)])
    camera = opened(device, YUYV)
    for number, shot in zip(range(7), camera, strict=False):
        pixels = shot.read()
        assert pixels.shape == YUYV.shape
        assert any(np.shares_memory(pixels, buffer) for buffer in device.memory)
        assert number_in(pixels, YUYV) == number
        assert shot.captured_ns == 1_000_000_000 * (number + 1)
        assert len(device.free) == 3
        shot.release()
        assert len(device.free) == 4
    assert (camera.live, camera.lost) == (True, 0)


@pytest.mark.parametrize(
    ("fourcc", "colour", "stride"),
    [("GREY", "gray", W), ("RGB3", "rgb", 3 * W), ("BGR3", "bgr", 3 * W), ("XR24", "bgra", 4 * W), ("NV12", "nv12", W)],
)
@pytest.mark.parametrize("padding", [0, 32])
def test_every_format_of_a_graph_goes_in_without_a_copy(fourcc: str, colour: Any, stride: int, padding: int) -> None:
    frame = graph_frame(W, H, colour, stride=stride + padding if padding else None)
    device = Recorded(fourcc, [whole(shown(5, colour, stride=frame.stride))], stride=stride + padding)
    pixels = next(iter(opened(device, frame))).read()
    assert pixels.shape == frame.shape
    assert any(np.shares_memory(pixels, buffer) for buffer in device.memory)
    assert number_in(pixels, frame) == 5


@pytest.mark.parametrize(
    ("fourcc", "colour", "row"), [("NV12", "nv12", W), ("YU12", "i420", W), ("RGB3", "rgb", 3 * W)]
)
@pytest.mark.parametrize(("theirs", "ours"), [(32, 0), (0, 64), (32, 64)])
def test_padding_is_left_out_or_put_in(fourcc: str, colour: Any, row: int, theirs: int, ours: int) -> None:
    frame = graph_frame(W, H, colour, stride=row + ours)
    device = Recorded(fourcc, [whole(shown(9, colour, stride=row + theirs))], stride=row + theirs)
    pixels = next(iter(opened(device, frame))).read()
    np.testing.assert_array_equal(pixels.reshape(-1), shown(9, colour, stride=row + ours).reshape(-1))


@pytest.mark.parametrize(("matrix", "span"), [("bt601", "limited"), ("bt709", "full")])
@pytest.mark.parametrize(("fourcc", "colour"), [("YUYV", "yuyv"), ("NV12", "nv12"), ("YU12", "i420")])
def test_another_format_is_converted_as_it_is_coded(fourcc: str, colour: Any, matrix: Any, span: Any) -> None:
    """Against the plain formula on the frame's own planes, colours spread over the pixels that share them."""
    stride = 2 * W if colour == "yuyv" else W
    given = Format(W, H, colour, None, matrix, span)
    buffer = shown(77, colour, matrix=matrix, range=span)
    device = Recorded(fourcc, [whole(buffer)], stride=stride, matrix=matrix, range=span)
    pixels = next(iter(opened(device, graph_frame(W, H, "rgb")))).read()
    luma, tints = planes_of(buffer, given)
    spread = tints.repeat(H // len(tints), 0).repeat(2, 1)
    expected = colours_of(np.concatenate([luma, spread], 2), given)
    assert np.abs(pixels.astype(int) - expected).mean() < 1.5
    assert number_in(pixels, graph_frame(W, H, "rgb")) == 77


def test_another_coding_of_the_same_planes_is_no_view() -> None:
    frame = graph_frame(W, H, "nv12", matrix="bt601", range="limited")
    device = Recorded(
        "NV12", [whole(shown(3, "nv12", matrix="bt709", range="full"))], stride=W, range="full", matrix="bt709"
    )
    pixels = next(iter(opened(device, frame))).read()
    assert np.abs(pixels.astype(int) - shown(3, "nv12")).mean() < 1.5


@pytest.mark.parametrize("colour", ["gray", "rgb", "bgr", "bgra", "nv12", "yuyv"])
def test_motion_jpeg_is_decoded_when_it_is_read(colour: str) -> None:
    frame = graph_frame(W, H, colour)
    padded = jpeg(12, subsampling="4:2:2") + bytes(200)
    pixels = next(iter(opened(Recorded("MJPG", [whole(np.frombuffer(padded, np.uint8))]), frame))).read()
    assert pixels.shape == frame.shape
    assert number_in(pixels, frame) == 12
    expected = shown(12, colour)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_motion_jpeg_is_made_smaller_inside_the_decoder() -> None:
    frame = graph_frame(W, H, "rgb")
    content = jpeg(44, 2 * W, 2 * H)
    pixels = next(
        iter(opened(Recorded("MJPG", [whole(np.frombuffer(content, np.uint8))], size=(2 * W, 2 * H)), frame))
    ).read()
    assert number_in(pixels, frame) == 44
    small = np.asarray(Image.fromarray(decode_image(content, "")).resize((W, H), Image.Resampling.BOX))
    assert np.abs(pixels.astype(int) - small).mean() < 2


def test_motion_jpeg_without_its_usual_tables_as_usb_cameras_send_it() -> None:
    content = jpeg(31)
    while (at := content.find(b"\xff\xc4")) >= 0:
        content = content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]
    for colour in ("rgb", "nv12"):
        frame = graph_frame(W, H, colour)
        device = Recorded("MJPG", [whole(np.frombuffer(content, np.uint8))])
        assert number_in(next(iter(opened(device, frame))).read(), frame) == 31


@pytest.mark.parametrize("colour", ["rgb", "nv12"])
def test_half_a_jpeg_and_a_short_frame_fail_alone(colour: str) -> None:
    frame, good = graph_frame(W, H, colour), jpeg(2)
    frames = [whole(np.frombuffer(content, np.uint8)) for content in (good[: len(good) // 2], b"\xff\xd8", good)]
    half, nothing, last = list(zip(range(3), opened(Recorded("MJPG", frames), frame), strict=False))
    for _, shot in (half, nothing):
        with pytest.raises(UserError, match="does not decode"):
            shot.read()
    assert number_in(last[1].read(), frame) == 2
    short = opened(Recorded(frames=[whole(shown(1)[:-1])]), YUYV)
    with pytest.raises(UserError, match="has 12096 bytes, 12288 were agreed on"):
        next(iter(short)).read()


def test_what_the_driver_lost_or_broke_is_counted() -> None:
    frame = shown(1).tobytes()
    device = Recorded(frames=[(frame, 1, False), (frame, 3, False), (frame, 1, True), (frame, 1, False)])
    camera = opened(device, YUYV)
    taken = [shot.name for _, shot in zip(range(3), camera, strict=False)]
    assert taken == ["video0#1", "video0#4", "video0#6"]
    assert camera.lost == 3
    assert len(device.free) == 1


def test_a_timetable_that_runs_ahead_makes_no_frame_younger_than_now() -> None:
    device = Recorded(frames=[whole(shown(1))])
    device.sequence = 10**9
    before_ns = time.monotonic_ns()
    captured_ns = next(iter(opened(device, YUYV))).captured_ns
    assert captured_ns is not None
    assert before_ns <= captured_ns <= time.monotonic_ns()


def test_an_unplugged_camera_is_lost_and_so_is_a_silent_one() -> None:
    device = Recorded(frames=[whole(shown(1)), (None, 0, False)])
    shots = iter(opened(device, YUYV))
    next(shots)
    with pytest.raises(SourceLost, match="/dev/video0: No such device"):
        next(shots)
    with pytest.raises(SourceLost, match="/dev/video0: no frame for 1 s"):
        next(iter(opened(Recorded(), YUYV, timeout_s=0.1)))


def test_close_ends_the_wait_and_a_frame_in_hand_can_still_be_read() -> None:
    device = Recorded(frames=[whole(shown(8))])
    camera = opened(device, YUYV, timeout_s=60)
    shots = iter(camera)
    shot = next(shots)
    threading.Timer(0.1, camera.close).start()
    assert list(shots) == []
    camera.close()
    assert device.closed == 1
    assert number_in(shot.read(), YUYV) == 8
    shot.release()
    opened_only = opened(second := Recorded(), YUYV)
    opened_only.close()
    assert (second.closed, list(opened_only)) == (1, [])


def test_what_cannot_be_had_is_told_and_the_device_let_go() -> None:
    device = Recorded("H265")
    with pytest.raises(UserError) as caught:
        opened(device, YUYV)
    assert caught.value.message == "none of the camera's formats (H265) can be read"
    assert "MJPG" in str(caught.value.hint)
    assert device.closed == 1
    with pytest.raises(UserError, match="/dev/video0: has no format 'NV12'") as caught:
        opened(Recorded(), YUYV, format="NV12")
    assert caught.value.hint == "it has H264, YUYV"


def test_a_device_that_is_not_there_is_lost(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "video9", "No such file"), (Path("/dev/null"), "Inappropriate ioctl")):
        with pytest.raises(SourceLost, match=said):
            open_camera("v4l2", camera_settings("v4l2")(path), YUYV)


def test_the_command_line_takes_a_device() -> None:
    assert source_for(Path("/dev/null"), fps=15) == ("v4l2", V4l2Settings(Path("/dev/null"), fps=15))
    for given in ({"loop": True}, {"fps": 0.0}):
        with pytest.raises(UserError, match="neither ends nor waits"):
            source_for(Path("/dev/null"), **given)


MODES = [
    Mode("YUYV", 640, 480, (30.0,)),
    Mode("YUYV", 1280, 720, (10.0,)),
    Mode("MJPG", 640, 480, (30.0,)),
    Mode("MJPG", 1280, 720, (30.0, 60.0)),
    Mode("MJPG", 1920, 1080, (30.0,)),
    Mode("H264", 1920, 1080, (30.0,)),
]


@pytest.mark.parametrize(
    ("frame", "fps", "taken", "said"),
    [
        (("yuyv", 1280, 720), None, "YUYV 1280x720 10 fps", ""),
        (("yuyv", 1280, 720), 30, "MJPG 1280x720 60 fps", "MJPG made yuyv"),
        (("rgb", 640, 480), None, "MJPG 640x480 30 fps", "MJPG made rgb"),
        (("rgb", 960, 540), None, "MJPG 1920x1080 30 fps", "MJPG made rgb, 1920x1080 resized to 960x540"),
        (("nv12", 224, 224), None, "MJPG 640x480 30 fps", "MJPG made nv12, 640x480 resized to 224x224"),
        (("yuyv", 224, 224), None, "YUYV 640x480 30 fps", "640x480 resized to 224x224"),
        (("gray", 3840, 2160), None, "MJPG 640x480 30 fps", "MJPG made gray, 640x480 resized to 3840x2160"),
    ],
)
def test_what_costs_least_is_taken(frame: Any, fps: Any, taken: str, said: str) -> None:
    colour, width, height = frame
    mode = best(MODES, Format(width, height, colour), fps)
    assert str(mode) == taken
    assert remark(mode, Format(width, height, colour)) == said


def test_a_pace_is_asked_for_and_a_range_of_sizes_is_met() -> None:
    device = Recorded(frames=[whole(shown(1))])
    device.sizes = lambda fourcc: [Sizes((32, 32), (1920, 1080), (32, 16))] if fourcc == "YUYV" else []  # type: ignore[method-assign]
    camera = opened(device, YUYV, fps=15)
    assert (device.asked_fps, camera.fps) == (15, 15)


@pytest.mark.skipif(not (shutil.which("cc") and HEADER.exists()), reason="no C compiler, or not the kernel's header")
def test_the_requests_are_the_kernels_own(tmp_path: Path) -> None:
    lines = "\n".join(f'printf("{name} %u\\n", (unsigned)VIDIOC_{name});' for name in REQUESTS)
    fields = {
        "v4l2_buffer": ["bytesused", "flags", "timestamp", "sequence", "memory", "m", "length"],
        "v4l2_format": ["fmt"],
    }
    offsets = "\n".join(
        f'printf("{kind}.{name} %zu\\n", offsetof(struct {kind}, {name}));' for kind in fields for name in fields[kind]
    )
    source = (
        f"#include <stddef.h>\n#include <stdio.h>\n#include <linux/videodev2.h>\nint main(void){{{lines}{offsets}}}"
    )
    (tmp_path / "a.c").write_text(source)
    subprocess.run(["cc", "-o", tmp_path / "a", tmp_path / "a.c"], check=True)
    told = subprocess.run([tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    theirs = {name: int(value) for name, value in (line.split() for line in told.splitlines())}
    assert {name: theirs[name] for name in REQUESTS} == {name: request.code for name, request in REQUESTS.items()}
    assert {name: at for name, at in theirs.items() if "." in name} == {
        "v4l2_buffer.bytesused": 8,
        "v4l2_buffer.flags": 12,
        "v4l2_buffer.timestamp": 24,
        "v4l2_buffer.sequence": 56,
        "v4l2_buffer.memory": 60,
        "v4l2_buffer.m": 64,
        "v4l2_buffer.length": 72,
        "v4l2_format.fmt": 8,
    }
