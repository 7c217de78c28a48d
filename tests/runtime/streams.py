"""Servers that show the test pattern: a bare one in Python, FFmpeg's, and GStreamer's RTSP server."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import count
from typing import Any

import pytest
from PIL import Image

from edgemask_runtime.cameras.pattern import PatternCamera, PatternSettings

from .test_cameras import graph_frame

SYSTEM_PYTHON = "/usr/bin/python3"
RTSP = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[2])
factory.set_shared(True)
if len(sys.argv) > 3:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*sys.argv[3].split(":")), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""
H264 = (
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency key-int-max=15 ! rtph264pay config-interval=1 name=pay0 pt=96 )"
)


def jpeg(number: int) -> bytes:
    frame = graph_frame(64, 48, "rgb")
    camera = PatternCamera(PatternSettings(), frame)
    content = BytesIO()
    Image.fromarray(camera.drawn(number)).save(content, "jpeg", quality=90)
    return content.getvalue()


class Multipart(BaseHTTPRequestHandler):
    """Motion JPEG as network cameras send it; the server's `pace` says when the next picture may go."""

    server: Any

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path != "/cam?pw=hidden":
            self.send_error(404)
            return
        if "Authorization" not in self.headers and self.server.guarded:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in count():
            if not self.server.pace(number):
                return
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
            content = jpeg(number)
            self.wfile.write(b"Content-Length: %d\r\n\r\n%b\r\n" % (len(content), content))

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def multipart_server(pace: Any, *, port: int = 0, guarded: bool = False) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", port), Multipart)
    server.daemon_threads, server.pace, server.asked = True, pace, []
    server.guarded = guarded
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def needs_gstreamer() -> None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("GStreamer's RTSP server is not installed: apt-get install gir1.2-gst-rtsp-server-1.0")


@contextmanager
def rtsp_server(launch: str = H264, port: int = 0, login: str | None = None) -> Iterator[tuple[Any, int]]:
    """The process and its port."""
    needs_gstreamer()
    command = [SYSTEM_PYTHON, "-c", RTSP, str(port), launch, *([login] if login else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    return found or pytest.skip("ffmpeg is not installed")
