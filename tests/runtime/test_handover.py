"""Frames from other processes: real sockets, real memory, and GStreamer on the system's own Python where it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.cameras import SourceLost, open_camera
from edgemask_runtime.cameras.gstreamer import GstreamerSettings
from edgemask_runtime.cameras.handover import FRAME, FRAME_MARK, FREE, Handover
from edgemask_runtime.cameras.helper import SYSTEM_PYTHON, HelperCamera, asked
from edgemask_runtime.cameras.local import SocketSettings
from edgemask_runtime.cameras.pattern import PatternCamera, PatternSettings, number_in
from edgemask_runtime.cameras.picamera2 import Picamera2Settings
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format
from edgemask_runtime.ring.memory import new_memory

from .test_cameras import graph_frame

FRAME_48 = graph_frame(64, 48, "nv12")
PRODUCER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from edgemask_runtime.cameras.producer import wait_for_daemon
from edgemask_runtime.cameras.pattern import PatternCamera, PatternSettings
from edgemask_runtime.manifest import FrameInput
print("ready", flush=True)
producer = wait_for_daemon(sys.argv[1])
wish = {name: producer.wish[name] for name in ("width", "height", "colour", "stride", "matrix", "range")}
pattern = PatternCamera(PatternSettings(), FrameInput(**wish, name="f", dtype="uint8", batch=None))
producer.offer(width=wish["width"], height=wish["height"], colour=wish["colour"])
number = 0
while not producer.closed:
    slot = producer.free_slot()
    if slot is None:
        time.sleep(0.001)
        continue
    producer.memory(slot)[:] = pattern.drawn(number).tobytes()
    producer.send(slot, captured_ns=time.monotonic_ns(), number=number)
    number += 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "door.sock"


@pytest.fixture
def program(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PRODUCER, str(path), str(Path(__file__).parents[2] / "runtime")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def connected(path: Path, frame: Any = FRAME_48) -> Any:
    """The camera as soon as somebody listens."""
    over = time.monotonic() + 60
    while not (camera := attempt(path, frame)):
        assert time.monotonic() < over
        time.sleep(0.01)
    return camera


def attempt(path: Path, frame: Any) -> Any:
    try:
        return open_camera("socket", SocketSettings(path, timeout_s=30), frame)
    except SourceLost:
        return None


def drained(shots: Any) -> list[Any]:
    """What is left, read and given back, until it breaks off."""
    found = []
    for shot in shots:
        found.append(shot.read().copy())
        shot.release()
    return found


def test_another_process_gives_frames_without_a_copy_until_it_dies(path: Path, program: Any) -> None:
    with closing(connected(path)) as camera:
        shots = iter(camera)
        for shot, number in zip(shots, range(200), strict=False):
            pixels = shot.read()
            assert number_in(pixels, FRAME_48) == number
            assert pixels.base is not None
            assert shot.name == f"door.sock#{number}"
            assert 0 < shot.captured_ns <= time.monotonic_ns()
            shot.release()
        program.kill()
        with pytest.raises(SourceLost, match=r"door\.sock: whoever offered frames is gone"):
            drained(shots)
    assert camera.lost == 0


def test_a_slot_in_use_is_not_written_to(path: Path, program: Any) -> None:
    with closing(connected(path)) as camera:
        held = list(islice(camera, 4))
        time.sleep(0.1)
        assert [number_in(shot.read(), FRAME_48) for shot in held] == [0, 1, 2, 3]


def test_nobody_there_is_lost_and_close_ends_the_wait(path: Path) -> None:
    with pytest.raises(SourceLost, match="nobody offers frames here: No such file"):
        open_camera("socket", SocketSettings(path), FRAME_48)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        camera = open_camera("socket", SocketSettings(path, timeout_s=60), FRAME_48)
        threading.Timer(0.1, camera.close).start()
        assert list(camera) == []
        silent = open_camera("socket", SocketSettings(path, timeout_s=0.2), FRAME_48)
        with closing(silent), pytest.raises(SourceLost, match="no frame for"):
            next(iter(silent))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to be another user")
def test_another_user_may_not_offer_frames_unless_it_is_allowed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        os.seteuid(65534)
        try:
            # The kernel notes who listens when it does.
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(UserError, match="user 65534 offers frames here"):
            open_camera("socket", SocketSettings(path), FRAME_48)
        open_camera("socket", SocketSettings(path, user="nobody"), FRAME_48).close()
    with pytest.raises(UserError, match="no user 'noone-x'"):
        open_camera("socket", SocketSettings(path, user="noone-x"), FRAME_48)


GOOD = {
    "version": 1,
    "width": 64,
    "height": 48,
    "colour": "nv12",
    "stride": None,
    "matrix": None,
    "range": None,
    "slots": 2,
}
BYTES = 64 * 72


def offered(message: Any, memory: Any, *packets: bytes) -> Any:
    """What a producer that says this gives."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    if memory is None:
        theirs.send(content)
    else:
        socket.send_fds(theirs, [content], [memory])
        os.close(memory)
    for packet in packets:
        theirs.send(packet)
    theirs.shutdown(socket.SHUT_WR)
    with theirs, closing(Handover(ours, "door", FRAME_48.format, 30)) as handover:
        return [shot.read() for shot in handover]


def memory(size: int = 2 * BYTES) -> int:
    return new_memory("test", size)


def unsealed() -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, 2 * BYTES)
    return descriptor


@pytest.mark.parametrize(
    ("message", "given", "said"),
    [
        (GOOD, None, "no memory came"),
        (GOOD, unsealed, "not sealed"),
        (GOOD, lambda: memory(BYTES), "has 4608 bytes, its slots need 9216"),
        (GOOD | {"slots": 1}, memory, "2 to 64"),
        (GOOD | {"slots": 2**40}, memory, "2 to 64"),
        (GOOD | {"version": 2}, memory, "1 to 1"),
        (GOOD | {"colour": "nv21"}, memory, "did you mean 'nv12'"),
        (GOOD | {"width": 63}, memory, "an even number"),
        (GOOD | {"more": 1}, memory, "unknown key"),
        (b"\xff\xfe", memory, "not valid JSON"),
        (b"[]", memory, "no offer"),
        ({"error": "no camera 3", "hint": "it has 1"}, None, "no camera 3"),
    ],
)
def test_an_offer_that_cannot_be_trusted_is_refused(message: Any, given: Any, said: str) -> None:
    with pytest.raises(SourceLost) as caught:
        offered(message, given and given())
    assert said in caught.value.message + str(caught.value.hint)


@pytest.mark.parametrize(
    "packet",
    [
        FRAME.pack(FRAME_MARK, 2, 0, -1),
        FRAME.pack(b"FRAN", 0, 0, -1),
        FRAME.pack(FRAME_MARK, 0, 0, -1)[:-1],
        b"{",
        b'{"error": "the cable is gone"}',
    ],
)
def test_a_message_that_is_no_frame_ends_it(packet: bytes) -> None:
    with pytest.raises((SourceLost, UserError)):
        offered(GOOD, memory(), packet)


def test_a_slot_given_twice_ends_it_and_a_hole_in_the_numbers_is_counted() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, closing(Handover(ours, "door", FRAME_48.format, 30)) as handover:
        descriptor = memory()
        socket.send_fds(theirs, [json.dumps(GOOD).encode()], [descriptor])
        os.close(descriptor)
        theirs.send(FRAME.pack(FRAME_MARK, 1, 5, -1))
        theirs.send(FRAME.pack(FRAME_MARK, 0, 9, 77))
        shots = iter(handover)
        first, second = islice(shots, 2)
        assert (first.captured_ns, second.captured_ns, handover.lost) == (None, 77, 3)
        wish = json.loads(theirs.recv(65536))
        assert {name: wish[name] for name in ("width", "height", "colour", "matrix", "range")} == {
            "width": 64,
            "height": 48,
            "colour": "nv12",
            "matrix": "bt601",
            "range": "limited",
        }
        first.release()
        assert FREE.unpack(theirs.recv(64)) == (b"FREE", 1)
        theirs.send(FRAME.pack(FRAME_MARK, 0, 10, -1))
        with pytest.raises(SourceLost, match="offers slot 0"):
            next(shots)


def test_another_format_is_converted() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source = graph_frame(128, 96, "rgb")
    with theirs, closing(Handover(ours, "door", FRAME_48.format, 30)) as handover:
        descriptor = memory(2 * 128 * 96 * 3)
        os.pwrite(descriptor, PatternCamera(PatternSettings(), source).drawn(33).tobytes(), 128 * 96 * 3)
        offer = {**GOOD, "width": 128, "height": 96, "colour": "rgb"}
        socket.send_fds(theirs, [json.dumps(offer).encode()], [descriptor])
        os.close(descriptor)
        theirs.send(FRAME.pack(FRAME_MARK, 1, 0, -1))
        assert number_in(next(iter(handover)).read(), FRAME_48) == 33


OLD = """
import socket, sys
sys.path.insert(0, sys.argv[1])
import producer
producer = producer.Producer(socket.socket(fileno=int(sys.argv[2])))
producer.offer(width=64, height=48, colour="nv12")
slot = producer.free_slot()
producer.memory(slot)[:] = bytes([9]) * 4608
producer.send(slot)
sys.stdin.read()
"""


def test_the_producer_needs_no_later_python_than_3_8() -> None:
    """What JetPack 5 has; asked of that Python itself, where it is here."""
    old = Path.home() / ".pyenv/versions/3.8.18/bin/python3.8"
    if not old.exists():
        pytest.skip("no Python 3.8 here")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder, end = Path(__file__).parents[2] / "runtime/edgemask_runtime/cameras", theirs.fileno()
    with (
        subprocess.Popen([old, "-I", "-c", OLD, folder, str(end)], pass_fds=[end], stdin=subprocess.PIPE) as process,
        closing(Handover(ours, "old", FRAME_48.format, 60)) as handover,
    ):
        theirs.close()
        assert (next(iter(handover)).read() == 9).all()
        process.kill()


def needs_gstreamer() -> None:
    try:
        said = asked("gstreamer-version")
    except UserError as error:
        pytest.skip(str(error))
    if not said.startswith("GStreamer 1."):
        pytest.skip(f"{said}: apt-get install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base")


def gstreamer(pipeline: str, frame: Any = FRAME_48, **settings: Any) -> Any:
    needs_gstreamer()
    return closing(open_camera("gstreamer", GstreamerSettings(pipeline, **({"timeout_s": 60} | settings)), frame))


@pytest.mark.parametrize("colour", ["gray", "rgb", "bgr", "rgba", "bgra", "nv12", "i420", "yuyv"])
def test_gstreamer_gives_every_format_of_a_graph(colour: Any) -> None:
    """Red, in GStreamer's own formats; 50 pixels wide, so that its rows are padded and its planes lie elsewhere."""
    frame = graph_frame(50, 36, colour)
    with gstreamer("videotestsrc is-live=true pattern=red", frame) as camera:
        shot = next(iter(camera))
        pixels = shot.read()
    assert pixels.shape == frame.shape
    red = {
        "gray": [(81, 76)],
        "rgb": [(255,), (0,), (0,)],
        "bgr": [(0,), (0,), (255,)],
        "rgba": [(255,), (0,), (0,), (255,)],
        "bgra": [(0,), (0,), (255,), (255,)],
    }
    if colour in red:
        found = [int(pixels[..., channel].mean()) for channel in range(pixels.shape[2])]
        assert all(min(abs(got - want) for want in wanted) < 6 for got, wanted in zip(found, red[colour], strict=True))
        return
    for plane, level in zip(planes(pixels, frame), (81, 90, 240), strict=True):
        assert np.abs(plane.astype(int) - level).max() <= 3


def planes(pixels: Any, frame: Format) -> Any:
    from edgemask_runtime.formats import planes_of

    luma, tints = planes_of(pixels, frame)
    return [luma, tints[..., 0], tints[..., 1]]


def test_a_live_pipelines_frames_are_dated_by_its_clock_and_the_helper_dies_with_its_camera() -> None:
    with gstreamer("videotestsrc is-live=true ! video/x-raw,framerate=50/1", graph_frame(640, 360, "nv12")) as camera:
        helper: HelperCamera = camera
        times, shots = [], iter(camera)
        for shot in islice(shots, 30):
            assert shot.read().std() > 10
            times.append(shot.captured_ns)
            shot.release()
        assert times == sorted(times)
        assert 0 <= time.monotonic_ns() - times[-1] < 60 * 10**9
        process = helper._process
        assert process.poll() is None
    assert process.poll() is not None


def test_a_helper_that_is_killed_is_lost_and_started_again() -> None:
    for _ in range(2):
        with gstreamer("videotestsrc is-live=true") as camera:
            shots = iter(camera)
            next(shots)
            os.kill(camera._process.pid, signal.SIGKILL)
            with pytest.raises(SourceLost, match="gstreamer: whoever offered frames is gone"):
                drained(shots)


def test_a_helper_ends_when_the_daemon_is_killed() -> None:
    needs_gstreamer()
    script = """
import sys
from edgemask_runtime.cameras import open_camera
from edgemask_runtime.cameras.gstreamer import GstreamerSettings
from edgemask_runtime.manifest import FrameInput
frame = FrameInput(64, 48, "nv12", name="f", dtype="uint8", batch=None)
camera = open_camera("gstreamer", GstreamerSettings("videotestsrc is-live=true", timeout_s=60), frame)
for shot in camera:
    print(camera._process.pid, flush=True)
    shot.release()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        helper = int(daemon.stdout.readline())
        daemon.kill()
    over = time.monotonic() + 60
    while Path(f"/proc/{helper}/cmdline").exists() and Path(f"/proc/{helper}/cmdline").read_bytes():
        assert time.monotonic() < over
        time.sleep(0.02)


def test_what_gstreamer_complains_about_is_told_without_a_password() -> None:
    with pytest.raises(SourceLost, match="no element"):
        gstreamer("videotestsrc ! nosuchelement")
    with pytest.raises(SourceLost, match="filesrc0"):
        gstreamer("filesrc location=/none/x.mp4 ! decodebin")
    pipeline = "videotestsrc name=rtsp://me:secret@door ! nosuchelement2 location=rtsp://me:secret@door/x"
    with pytest.raises(SourceLost) as caught:
        gstreamer(pipeline)
    assert "secret" not in str(caught.value) + repr(GstreamerSettings(pipeline))


def test_a_file_is_played_at_its_own_pace_and_ends(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        pattern = PatternCamera(PatternSettings(), graph_frame(64, 48, "rgb"))
        for number in range(15):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pattern.drawn(number), format="rgb24")))
        container.mux(stream.encode())
    gray, found = graph_frame(64, 48, "gray"), []
    pipeline = f"filesrc location={path} ! avidemux ! jpegdec"
    with gstreamer(pipeline, gray) as camera, pytest.raises(SourceLost, match="the pipeline's stream ended"):
        found.extend(number_in(pixels, gray) for pixels in given_until_it_ends(camera))
    assert found[-1] == 14
    assert found == sorted(found)


def given_until_it_ends(camera: Any) -> Iterator[Any]:
    for shot in camera:
        yield shot.read()
        shot.release()


def test_without_picamera2_or_python_that_is_told() -> None:
    if not SYSTEM_PYTHON.exists():
        pytest.skip("no Python of the system's own")
    if not asked("picamera2-list").startswith("picamera2 is not installed"):
        pytest.skip("picamera2 is installed here")
    with pytest.raises(SourceLost, match="picamera2 is not installed for /usr/bin/python3"):
        open_camera("picamera2", Picamera2Settings(timeout_s=60), FRAME_48)
    with pytest.raises(UserError, match="/none/python: No such file"):
        open_camera("gstreamer", GstreamerSettings("videotestsrc", python=Path("/none/python")), FRAME_48)
