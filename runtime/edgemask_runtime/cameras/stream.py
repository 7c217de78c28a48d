"""A stream from the network as a camera, through PyAV: RTSP, Motion JPEG over HTTP, RTMP, SRT, MPEG-TS over UDP."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from edgemask_runtime.cameras import SourceLost
from edgemask_runtime.cameras.clock import StreamClock
from edgemask_runtime.cameras.ffmpeg import Decoder, Taken, import_av
from edgemask_runtime.errors import UserError, unknown
from edgemask_runtime.files import read_bytes
from edgemask_runtime.frames import NS_PER_S, Shot
from edgemask_runtime.keys import check_owner_only
from edgemask_runtime.manifest import FrameInput
from edgemask_runtime.strict_json import between

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
# What a stream may open in its turn, so that a playlist from the network cannot name a file of this machine.
PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,rtmp,rtmps,srt,crypto"
# Of the others FFmpeg makes times up, 25 frames a second.
TIMED_FORMATS = {"rtsp", "rtp", "sdp", "mpegts", "flv", "hls", "dash", "matroska", "webm", "mov", "mp4"}
MAX_LOGIN_BYTES = 1000
MICROSECONDS = 1e-6

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class StreamSettings:
    """The stream's address, and how long it may be silent before it counts as lost.

    `transport` is RTSP's; `login_file` holds `name:password`, so that the settings need not; `ca_file` has the
    certificates that an https or rtsps server is checked against. `clock` "camera" takes the camera's own time of
    capture, which is right only where it and this machine keep the same time (NTP, PTP).
    """

    url: str = field(repr=False)
    transport: Literal["tcp", "udp"] = "tcp"
    timeout_s: float = field(default=5.0, metadata=between(0.1, 60))
    clock: Literal["arrival", "camera"] = "arrival"
    max_lag_s: float = field(default=5.0, metadata=between(0.1, 60))
    login_file: Path | None = None
    ca_file: Path | None = None


class StreamCamera:
    """Takes frames as they come, in a thread of its own, so that `close` need not wait for the network.

    Only the newest frame is kept for whoever iterates; what it replaced counts in `lost`.
    """

    Settings = StreamSettings
    live = True
    fps = 0.0

    def __init__(self, settings: StreamSettings, frame: FrameInput) -> None:
        self._url = _with_login(settings)
        self.where = shown(settings.url)
        self._av = import_av(f"{self.where}: a stream")
        self._settings, self._frame = settings, frame
        self._changed = Condition()
        self._shot: Shot | None = None
        self._end: Exception | None = None
        self._closed = False
        self._heard_s, self._begun_ns = time.monotonic(), time.monotonic_ns()
        self._warned = self._timed = False
        self.lost = 0

    def __iter__(self) -> Iterator[Shot]:
        """Give the newest frame, again and again; SourceLost when there are no more."""
        Thread(target=self._receive, name=f"stream {self.where}", daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._shot or self._end)
                shot, self._shot = self._shot, None
                if self._closed:
                    return
                if shot is None and self._end:
                    raise self._end
            if shot:
                yield shot

    def close(self) -> None:
        """End the iteration at once; the connection is given up with its next packet, or when its time is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _receive(self) -> None:
        end: Exception = SourceLost(f"{self.where}: the stream ended")
        try:
            self._take_all()
        except (self._av.FFmpegError, OSError) as error:
            end = SourceLost(f"{self.where}: {self._reason(error)}")
        except Exception as error:
            end = error
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _reason(self, error: Any) -> str:
        """Not the error's own text, which has the whole address in it."""
        if time.monotonic() - self._heard_s >= self._settings.timeout_s:
            return f"silent for {self._settings.timeout_s:g} s"
        return str(error.strerror or type(error).__name__)

    def _take_all(self) -> None:
        timeout_s = self._settings.timeout_s
        with self._av.open(self._url, options=_options(self._settings), timeout=(timeout_s, timeout_s)) as container:
            if not container.streams.video:
                raise SourceLost(f"{self.where}: no video in this stream")
            if container.duration:
                hint = 'store it as a file and take kind = "video"'
                raise SourceLost(f"{self.where}: a recording with an end, no live stream", hint)
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            self.fps = float(stream.average_rate or 0)
            self._take_from(container, stream)

    def _take_from(self, container: Any, stream: Any) -> None:
        self._begun_ns = time.monotonic_ns()
        self._timed = not TIMED_FORMATS.isdisjoint(container.format.name.split(","))
        decoder, clock, number = Decoder(stream, self._frame), StreamClock(), 0
        for packet in container.demux(stream):
            arrived_ns = time.monotonic_ns()
            self._heard_s = arrived_ns / NS_PER_S
            for taken in decoder.frames(packet):
                captured_ns = self._captured_ns(taken, arrived_ns, clock, container)
                if captured_ns is not None:
                    self._put(Shot(f"{self.where}#{number}", taken.read, captured_ns))
                number += 1
            if self._closed:
                return

    def _captured_ns(self, taken: Taken, arrived_ns: int, clock: StreamClock, container: Any) -> int | None:
        if taken.seconds is None or not self._timed:
            return arrived_ns
        if self._settings.clock == "camera":
            return self._by_the_camera(taken.seconds, arrived_ns, container)
        captured_ns = clock.captured_ns(taken.seconds, arrived_ns)
        lag_s = (arrived_ns - captured_ns) / NS_PER_S
        if lag_s > self._settings.max_lag_s:
            raise SourceLost(f"{self.where}: {lag_s:.1f} s behind", "what waits on the way is left there")
        return captured_ns

    def _by_the_camera(self, stream_s: float, arrived_ns: int, container: Any) -> int | None:
        if container.start_time_realtime is None:
            # The sender's first report comes a few seconds after its first frame.
            if arrived_ns - self._begun_ns > self._settings.timeout_s * NS_PER_S:
                raise SourceLost(
                    f"{self.where}: the stream does not say when it was captured", 'take clock = "arrival"'
                )
            return None
        wall_s = container.start_time_realtime * MICROSECONDS + stream_s
        age_s: float = time.time() - wall_s
        if age_s < 0 and not self._warned:
            log.warning("%s: the camera's clock is %.3f s ahead of this machine's", self.where, -age_s)
            self._warned = True
        return arrived_ns - max(0, round(age_s * NS_PER_S))

    def _put(self, shot: Shot) -> None:
        with self._changed:
            self.lost += self._shot is not None
            self._shot = shot
            self._changed.notify_all()


def shown(url: str) -> str:
    """The address as logs and answers may have it: without name, password, path and query, any of which may be secret.

    Many cameras take the password in the path or the query; and a password with a slash in it can end up there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "stream"
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return f"{parts.scheme}://..."
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _with_login(settings: StreamSettings) -> str:
    try:
        parts = urlsplit(settings.url)
    except ValueError as error:
        raise UserError("a stream's url that cannot be read") from error
    if parts.scheme not in SCHEMES:
        raise unknown("scheme of a stream's url:", parts.scheme, SCHEMES)
    if not parts.netloc:
        raise UserError("a stream's url that names no host", hint="rtsp://HOST:PORT/PATH")
    if settings.login_file is None:
        return settings.url
    name, password = _login(settings.login_file)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}:{quote(password, safe='')}@{host}"))


def _login(path: Path) -> tuple[str, str]:
    content = read_bytes(path, limit_bytes=MAX_LOGIN_BYTES)
    check_owner_only(path, "log in with this")
    name, colon, password = content.decode(errors="replace").strip().partition(":")
    if not colon:
        raise UserError(f"{path}: no name:password", hint="one line, with a colon between them")
    return name, password


def _options(settings: StreamSettings) -> dict[str, str]:
    """What keeps FFmpeg from waiting: no packets held back at the start, none put in order, no long look at them."""
    options = {
        "fflags": "nobuffer",
        "flags": "low_delay",
        "analyzeduration": "500000",
        "probesize": "500000",
        "protocol_whitelist": PROTOCOLS,
    }
    if settings.url.startswith("rtsp"):
        options["rtsp_transport"] = settings.transport
    if settings.ca_file:
        options |= {"tls_verify": "1", "ca_file": str(settings.ca_file)}
    return options
