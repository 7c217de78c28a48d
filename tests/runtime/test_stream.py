from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.cameras import SourceLost, open_camera
from edgemask_runtime.cameras.clock import StreamClock
from edgemask_runtime.cameras.pattern import number_in
from edgemask_runtime.cameras.stream import StreamSettings, shown
from edgemask_runtime.errors import UserError

from .streams import ffmpeg, jpeg, multipart_server, rtsp_server
from .test_cameras import graph_frame

FRAME = graph_frame(64, 48, "rgb")
S = 10**9


def camera(url: str, frame: Any = FRAME, **settings: Any) -> Any:
    return closing(open_camera("stream", StreamSettings(url, **({"timeout_s": 30} | settings)), frame))


class Turnstile:
    """Lets a server send one picture each time the test asks for it."""

    def __init__(self) -> None:
        self.tickets = threading.Semaphore(0)
        self.over = False

    def __call__(self, number: int) -> bool:
        return self.tickets.acquire(timeout=60) and not self.over

    def admit(self, pictures: int) -> None:
        for _ in range(pictures):
            self.tickets.release()


def test_motion_jpeg_over_http_gives_each_picture_and_its_loss() -> None:
    pace = Turnstile()
    with multipart_server(pace, guarded=True) as server:
        url = f"http://me:secret@127.0.0.1:{server.server_port}/cam?pw=hidden"
        with camera(url) as opened:
            pace.admit(20)
            shots = iter(opened)
            first = next(shots)
            assert number_in(first.read(), FRAME) in range(20)
            assert opened.live
            pace.over = True
            pace.admit(1)
            assert "secret" not in first.name
            with pytest.raises(SourceLost, match="http://127") as caught:
                list(shots)
        assert "secret" not in caught.value.message + repr(opened) + repr(StreamSettings(url))
        assert "hidden" not in caught.value.message
    assert server.asked[-1][1] == "Basic bWU6c2VjcmV0"


def test_a_picture_that_nobody_takes_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Turnstile()
    with multipart_server(pace) as server, camera(f"http://127.0.0.1:{server.server_port}/cam?pw=hidden") as opened:
        pace.admit(30)
        shots = list(islice(opened, 1))
        pace.admit(10)
        wait_for(lambda: opened._shot and opened.lost)
        pace.over = True
        pace.admit(1)
        assert shots[0].read().shape == FRAME.shape
        wait_for(lambda: opened._end)
        last = opened._shot
        assert last
        assert number_in(last.read(), FRAME) == int(last.name.rpartition("#")[2]) + number_offset(shots[0])
        assert opened.lost >= 1


def test_motion_jpeg_has_no_clock_and_slow_is_not_late() -> None:
    """FFmpeg dates it at 25 frames a second; at ten a lag would seem to grow."""
    pace = Turnstile()
    with multipart_server(pace) as server:
        url = f"http://127.0.0.1:{server.server_port}/cam?pw=hidden"
        with camera(url, max_lag_s=0.2) as opened:
            pace.admit(8)
            shots = iter(opened)
            for _ in range(12):
                shot = next(shots)
                time.sleep(0.1)
                pace.admit(1)
            assert time.monotonic_ns() - shot.captured_ns < 30 * S


def number_offset(shot: Any) -> int:
    """FFmpeg may drop pictures while it looks at the stream's start."""
    return number_in(shot.read(), FRAME) - int(shot.name.rpartition("#")[2])


def wait_for(holds: Any, seconds: float = 60) -> None:
    over = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.01)


def test_a_server_that_says_nothing_counts_as_lost_and_close_does_not_wait_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://me:secret@127.0.0.1:{server.getsockname()[1]}/cam"
        with camera(url, timeout_s=0.3) as opened, pytest.raises(SourceLost, match="silent for 0") as caught:
            next(iter(opened))
        assert "secret" not in str(caught.value)
        with camera(url, timeout_s=60) as opened:
            threading.Timer(0.2, opened.close).start()
            assert list(opened) == []


def test_nobody_at_the_address_is_lost_and_says_no_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with camera(f"http://me:secret@127.0.0.1:{port}/x?token=hidden") as opened, pytest.raises(SourceLost) as caught:
        next(iter(opened))
    assert caught.value.message == f"http://127.0.0.1:{port}: Connection refused"


def test_the_servers_refusal_is_told() -> None:
    with multipart_server(lambda _: True) as server, camera(f"http://127.0.0.1:{server.server_port}/no") as opened:
        shots = iter(opened)
        with pytest.raises(SourceLost, match="404 Not Found"):
            next(shots)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp://me:secret@door:554/live/hidden?pw=hidden", "rtsp://door:554"),
        ("rtsp://me:secret/hidden@door/live", "stream"),
        ("rtsp://me/secret:hidden@door/live", "rtsp://..."),
        ("http://[::1]:80/hidden", "http://[::1]:80"),
        ("rtsp://me:secret@door:port/", "stream"),
        ("udp://@239.0.0.1:5000", "udp://239.0.0.1:5000"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, said: str) -> None:
    assert shown(url) == said


@pytest.mark.parametrize("url", ["file:///etc/passwd", "concat:a|b", "/etc/passwd", "rtsp:///x", "http://[::1"])
def test_only_addresses_in_the_network_are_taken(url: str) -> None:
    with pytest.raises(UserError) as caught:
        camera(url)
    assert "passwd" not in caught.value.message


def test_a_login_in_a_file_of_its_own(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text("me:p@ss:wo/rd\n")
    login.chmod(0o644)
    with pytest.raises(UserError, match="others than its owner"):
        camera("http://door/cam", login_file=login)
    login.chmod(0o600)
    pace = Turnstile()
    with multipart_server(pace, guarded=True) as server:
        url = f"http://127.0.0.1:{server.server_port}/cam?pw=hidden"
        with camera(url, login_file=login) as opened:
            pace.admit(20)
            next(iter(opened))
    assert server.asked[-1][1] == "Basic bWU6cEBzczp3by9yZA=="


def test_a_recording_is_no_live_stream(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "a.avi").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve_once, args=(server, content), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.avi"
        with camera(url) as opened, pytest.raises(SourceLost, match="no live stream"):
            next(iter(opened))


def serve_once(server: socket.socket, content: bytes) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            peer.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nContent-Type: video/avi\r\n\r\n"
            peer.sendall(head.encode() + content)


def test_a_playlist_from_the_network_opens_no_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path / 'a.jpg'}\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve_once, args=(server, playlist.encode()), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.m3u8"
        with camera(url, timeout_s=5) as opened, pytest.raises(SourceLost):
            next(iter(opened))


def test_ffmpeg_as_a_motion_jpeg_server_killed_and_started_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=30", "-c:v", "mjpeg", "-q:v", "3", "-f", "mpjpeg"]
    command = [ffmpeg(), "-loglevel", "error", "-re", *source, "-listen", "1", f"http://127.0.0.1:{port}/cam"]
    for _ in range(2):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as server:
            opened, shots = wait_until_it_shows(f"http://127.0.0.1:{port}/cam")
            with opened:
                assert next(shots).read().std() > 30
                server.kill()
                with pytest.raises(SourceLost):
                    list(shots)


def wait_until_it_shows(url: str) -> Any:
    over = time.monotonic() + 60
    while True:
        opened = camera(url)
        shots = iter(opened.thing)
        try:
            next(shots)
        except SourceLost:
            assert time.monotonic() < over
            time.sleep(0.1)
        else:
            return opened, shots


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_h264_over_rtsp_from_a_server_killed_and_started_again(transport: str) -> None:
    port = 0
    for _ in range(2):
        with rtsp_server(port=port) as (server, port), rtsp_camera(port, transport=transport) as opened:
            shots = iter(opened)
            taken = list(islice(shots, 20))
            assert taken[-1].read().std() > 30
            times = np.array([shot.captured_ns for shot in taken])
            assert (np.diff(times) > 0).all()
            assert time.monotonic_ns() >= times[-1]
            assert opened.fps == 30
            server.kill()
            with pytest.raises(SourceLost):
                list(shots)


def rtsp_camera(port: int, **settings: Any) -> Any:
    return camera(f"rtsp://127.0.0.1:{port}/cam", **settings)


def test_a_login_over_rtsp_and_what_its_refusal_says(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.touch(0o600)
    login.write_text("me:secret")
    with rtsp_server(login="me:secret") as (_, port):
        with rtsp_camera(port, login_file=login) as opened:
            assert next(iter(opened)).read().shape == FRAME.shape
        with camera(f"rtsp://me:wrong@127.0.0.1:{port}/cam") as opened, pytest.raises(SourceLost) as caught:
            next(iter(opened))
    assert caught.value.message == f"rtsp://127.0.0.1:{port}: Server returned 401 Unauthorized (authorization failed)"


def test_the_cameras_own_clock_over_rtsp() -> None:
    """The server states this machine's time, so that the age is that of the frame, coding and all."""
    with rtsp_server() as (_, port), rtsp_camera(port, clock="camera") as opened:
        shot = next(iter(opened))
        age_s = (time.monotonic_ns() - shot.captured_ns) / S
        assert 0.001 < age_s < 20


def test_the_clock_of_a_steady_stream_takes_the_jitter_away() -> None:
    clock, jitter = StreamClock(), np.random.default_rng(1).uniform(0, 0.02, 300)
    stream = np.arange(300) / 30
    found = [clock.captured_ns(s, round((100 + s + late) * S)) for s, late in zip(stream, jitter, strict=True)]
    late_ns = np.array(found) - (100 + stream) * S
    assert (late_ns[100:] >= -1).all()
    assert late_ns[100:].max() < 0.003 * S


def test_the_clock_shows_a_lag_that_grows_and_stays() -> None:
    clock = StreamClock()
    for number in range(600):
        arrived = 100 + number / 30 + max(0, min(number - 300, 150)) * 0.02
        age_s = arrived - clock.captured_ns(number / 30, round(arrived * S)) / S
    assert 2.99 < age_s < 3.001


def test_the_clock_follows_a_drift_and_a_jump() -> None:
    clock = StreamClock()
    for number in range(100_000):
        arrived = 100 + number / 30 * (1 + 100e-6)
        age_s = arrived - clock.captured_ns(number / 30, round(arrived * S)) / S
    assert age_s < 0.001
    for number in range(5):
        arrived += 1 / 30
        assert arrived - clock.captured_ns(7 + number / 30, round(arrived * S)) / S < 0.001
