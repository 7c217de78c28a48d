"""Offers frames to the daemon from another process, in one file with no dependency, for whatever Python is there.

As a library, in a program of your own:

    producer = wait_for_daemon("/run/cameras/door.sock")
    producer.offer(width=1280, height=720, colour="nv12")
    while True:
        slot = producer.free_slot()          # None while the daemon holds all: leave this frame out
        if slot is not None:
            producer.memory(slot)[:] = frame
            producer.send(slot, captured_ns=time.monotonic_ns())

As a program it is the helper that the daemon starts on the system's own Python, for GStreamer and picamera2, whose
packages a virtual environment does not have. It ends when the daemon's end of the socket is closed, however that ends.

Why no import of edgemask_runtime, and none of NumPy: the system's Python may be 3.8 and has its own versions.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import queue
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

VERSION = 1
FRAME, FREE = struct.Struct("<4sIQq"), struct.Struct("<4sI")
FRAME_MARK, FREE_MARK = b"FRAM", b"FREE"
MAX_PACKET_BYTES = 1 << 16
SLOTS = 4
# Python has names for these from 3.9 on.
ADD_SEALS, SHRINK_AND_GROW = 1033, 2 | 4
SECRETS = re.compile(r"://[^/\s]*@")
SECOND_NS = 1_000_000_000


class Producer:
    """A connection to the daemon; `wish` is the frame that its graph takes: width, height, colour, stride, ..."""

    def __init__(self, connected: socket.socket, ended: Callable[[], None] | None = None) -> None:
        self._socket, self._ended = connected, ended
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._map: mmap.mmap | None = None
        self._slot_bytes = self._number = 0
        self.closed = False
        self.wish: dict[str, Any] = json.loads(connected.recv(MAX_PACKET_BYTES) or b"{}")

    def offer(
        self,
        *,
        width: int,
        height: int,
        colour: str,
        stride: int | None = None,
        matrix: str | None = None,
        value_range: str | None = None,
        slots: int = SLOTS,
    ) -> None:
        """Say what frames lie like, and hand over memory for as many; the daemon converts what is not its wish."""
        self._slot_bytes = frame_bytes(width, height, colour, stride)
        descriptor = os.memfd_create("edgemask-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(descriptor, slots * self._slot_bytes)
        fcntl.fcntl(descriptor, ADD_SEALS, SHRINK_AND_GROW)
        self._map = mmap.mmap(descriptor, slots * self._slot_bytes)
        about = {"version": VERSION, "width": width, "height": height, "colour": colour, "stride": stride}
        message = json.dumps({**about, "matrix": matrix, "range": value_range, "slots": slots})
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
        self._socket.sendmsg([message.encode()], rights)
        os.close(descriptor)
        for slot in range(slots):
            self._free.put(slot)
        threading.Thread(target=self._listen, daemon=True).start()

    def free_slot(self) -> int | None:
        """A slot that the daemon does not look at; None when there is none, which a camera must not wait for."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def memory(self, slot: int) -> memoryview:
        """The slot's bytes, to be written."""
        if self._map is None:
            raise ValueError("offer() comes first")
        return memoryview(self._map)[slot * self._slot_bytes : (slot + 1) * self._slot_bytes]

    def address(self, slot: int) -> int:
        """Where the slot begins, for a C library that writes it."""
        return ctypes.addressof(ctypes.c_ubyte.from_buffer(self.memory(slot)))

    def send(self, slot: int, *, captured_ns: int | None = None, number: int | None = None) -> None:
        """Give the slot to the daemon: when its frame was captured (monotonic clock), and its number if it has one."""
        self._number = self._number + 1 if number is None else number
        self._socket.send(FRAME.pack(FRAME_MARK, slot, self._number, -1 if captured_ns is None else captured_ns))

    def fail(self, message: str, hint: str | None = None) -> None:
        """Tell the daemon why there will be no more frames."""
        self._socket.send(json.dumps({"error": SECRETS.sub("://...@", message), "hint": hint}).encode())

    def _listen(self) -> None:
        while not self.closed:
            try:
                packet = self._socket.recv(FREE.size)
            except OSError:
                packet = b""
            if packet:
                self._free.put(FREE.unpack(packet)[1])
            else:
                self.closed = True
        if self._ended:
            self._ended()


CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "yuyv": 2, "nv12": 1, "i420": 1}


def frame_bytes(width: int, height: int, colour: str, stride: int | None = None) -> int:
    """The bytes of a frame."""
    rows = height * 3 // 2 if colour in ("nv12", "i420") else height
    return rows * (stride or width * CHANNELS[colour])


def wait_for_daemon(path: str) -> Producer:
    """Listen at `path`, for this user and root alone, until a daemon connects."""
    if os.path.exists(path):  # noqa: PTH110
        os.unlink(path)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        listener.listen(1)
        return Producer(listener.accept()[0])


class Fault(Exception):
    """What the daemon is told instead of frames."""


GST_NAMES = {
    "gray": "GRAY8",
    "rgb": "RGB",
    "bgr": "BGR",
    "rgba": "RGBA",
    "bgra": "BGRA",
    "nv12": "NV12",
    "i420": "I420",
    "yuyv": "YUY2",
}
# Range, matrix, transfer and primaries in GStreamer's numbers.
COLORIMETRY = {
    ("bt601", "limited"): "bt601",
    ("bt709", "limited"): "bt709",
    ("bt601", "full"): "1:4:0:0",
    ("bt709", "full"): "1:3:5:1",
}
PULL_S = 0.2


class GStreamer:
    """A pipeline's newest frames; what it was decoded to is converted to the graph's format where it is not yet."""

    def __init__(self, producer: Producer, description: str) -> None:
        self.gst, self.video = gst_modules()
        wish = producer.wish
        caps = f"video/x-raw,format={GST_NAMES[wish['colour']]},width={wish['width']},height={wish['height']}"
        if wish["colour"] in ("nv12", "i420", "yuyv"):
            caps += f",colorimetry=(string){COLORIMETRY[wish['matrix'], wish['range']]}"
        sink = "appsink name=edgemask max-buffers=1 drop=true sync=false"
        self.producer = producer
        try:
            self.pipeline = self.gst.parse_launch(f"{description} ! videoconvert ! videoscale ! {caps} ! {sink}")
        except Exception as error:
            raise Fault(f"the pipeline is not understood: {getattr(error, 'message', error)}") from error
        self.sink = self.pipeline.get_by_name("edgemask")
        self.copied = gst_copier()
        self.layout: tuple[int, list[int], list[int]] | None = None

    def run(self) -> None:
        """Send frames until there are no more."""
        # Why PAUSED first: it tells whether the source is live; only a file is to be held to its own pace.
        paused = self.pipeline.set_state(self.gst.State.PAUSED)
        live = paused == self.gst.StateChangeReturn.NO_PREROLL
        self.sink.set_property("sync", not live)
        self.pipeline.set_state(self.gst.State.PLAYING)
        while not self.producer.closed:
            sample = self.sink.try_pull_sample(int(PULL_S * SECOND_NS))
            if sample is not None:
                self.send(sample, live)
            elif self.sink.get_property("eos"):
                self.fault_of_bus()
                raise Fault("the pipeline's stream ended")
            else:
                self.fault_of_bus()

    def send(self, sample: Any, live: bool) -> None:
        """Copy one frame into the ring."""
        buffer = sample.get_buffer()
        if self.layout is None:
            self.layout = self.offered(sample.get_caps())
        slot = self.producer.free_slot()
        if slot is None:
            return
        self.copy(buffer, slot)
        self.producer.send(slot, captured_ns=self.captured_ns(buffer) if live else None)

    def offered(self, caps: Any) -> tuple[int, list[int], list[int]]:
        """Hand over memory for frames of these caps: their bytes, and each plane's place and stride."""
        info, wish = self.video.VideoInfo.new_from_caps(caps), self.producer.wish
        planes = info.finfo.n_planes
        strides, offsets = list(info.stride[:planes]), list(info.offset[:planes])
        stride = strides[0]
        about = {"width": wish["width"], "height": wish["height"], "colour": wish["colour"], "stride": stride}
        self.producer.offer(**about, matrix=wish["matrix"], value_range=wish["range"])
        return frame_bytes(**about), offsets, strides

    def copy(self, buffer: Any, slot: int) -> None:
        """All at once where the planes lie as the daemon takes them, which is nearly always; row by row otherwise."""
        assert self.layout is not None  # noqa: S101
        size, offsets, strides = self.layout
        meta = self.video.buffer_get_video_meta(buffer)
        if meta is not None:
            offsets, strides = list(meta.offset[: len(offsets)]), list(meta.stride[: len(strides)])
        wanted = self.places()
        fits = [at for at, _, _ in wanted] == offsets and [stride for _, stride, _ in wanted] == strides
        if fits and buffer.get_size() >= size:
            self.copied(buffer, self.producer.address(slot), size)
            return
        content, memory = buffer.extract_dup(0, buffer.get_size()), self.producer.memory(slot)
        for (target, row, rows), source, step in zip(wanted, offsets, strides):  # noqa: B905
            width = min(row, step)
            for number in range(rows):
                begin = source + number * step
                memory[target + number * row : target + number * row + width] = content[begin : begin + width]

    def places(self) -> list[tuple[int, int, int]]:
        """Where the daemon looks for each plane: its first byte, its stride and its rows."""
        assert self.layout is not None  # noqa: S101
        height, colour, stride = self.producer.wish["height"], self.producer.wish["colour"], self.layout[2][0]
        places = [(0, stride, height)]
        if colour == "nv12":
            places.append((stride * height, stride, height // 2))
        elif colour == "i420":
            half, size = stride // 2, stride * height
            places += [(size, half, height // 2), (size + half * (height // 2), half, height // 2)]
        return places

    def captured_ns(self, buffer: Any) -> int | None:
        """The buffer's own time, where the pipeline's clock is this machine's monotonic one."""
        clock, pts = self.pipeline.get_clock(), buffer.pts
        if pts == self.gst.CLOCK_TIME_NONE or not isinstance(clock, self.gst.SystemClock):
            return None
        told: int = self.pipeline.get_base_time() + pts
        return told if abs(clock.get_time() - time.monotonic_ns()) < SECOND_NS else None

    def fault_of_bus(self) -> None:
        """Raise what the pipeline complains about."""
        message = self.pipeline.get_bus().pop_filtered(self.gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            raise Fault(f"{message.src.get_name()}: {error.message}")


def gst_modules() -> tuple[Any, Any]:
    """GStreamer as the system has it."""
    try:
        import gi  # type: ignore[import-not-found,unused-ignore]

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        from gi.repository import Gst, GstApp, GstVideo  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, ValueError) as error:
        raise Fault(f"GStreamer is not installed for {sys.executable}: {error}") from error
    Gst.init(None)
    del GstApp
    return Gst, GstVideo


def gst_copier() -> Callable[[Any, int, int], None]:
    """Copies a buffer to an address. Why C: PyGObject makes bytes of a buffer first, which costs ten times as much."""
    library = ctypes.CDLL("libgstreamer-1.0.so.0")
    extract = library.gst_buffer_extract
    extract.argtypes, extract.restype = (
        [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t],
        ctypes.c_size_t,
    )

    # The hash of what PyGObject wraps is its address, on which NVIDIA's DeepStream bindings rely too.
    def copy(buffer: Any, address: int, size: int) -> None:
        if extract(hash(buffer), 0, address, size) != size:
            raise Fault("a frame is shorter than its format")

    return copy


PICAMERA_NAMES = {
    "i420": "YUV420",
    "nv12": "NV12",
    "yuyv": "YUYV",
    "rgb": "BGR888",
    "bgr": "RGB888",
    "rgba": "XBGR8888",
    "bgra": "XRGB8888",
}
"""Picamera2 names a format by its bits, highest first; the graph by its bytes, first byte first."""


def picamera2(producer: Producer, options: dict[str, Any]) -> None:
    """Send what libcamera gives of a Raspberry Pi's camera. Not tested: it needs the camera."""
    try:
        from picamera2 import MappedArray, Picamera2  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise Fault(f"picamera2 is not installed for {sys.executable}: {error}") from error
    wish = producer.wish
    if wish["colour"] not in PICAMERA_NAMES:
        raise Fault(f"picamera2 has no {wish['colour']}: take {', '.join(PICAMERA_NAMES)}")
    camera = Picamera2(options["camera"])
    main = {"size": (wish["width"], wish["height"]), "format": PICAMERA_NAMES[wish["colour"]]}
    period_us = int(1_000_000 / options["fps"])
    controls = {"FrameDurationLimits": (period_us, period_us)}
    camera.configure(camera.create_video_configuration(main=main, buffer_count=SLOTS, controls=controls))
    given = camera.camera_configuration()["main"]
    width, height = given["size"]
    producer.offer(width=width, height=height, colour=wish["colour"], stride=given["stride"])
    camera.start()
    while not producer.closed:
        request = camera.capture_request()
        try:
            slot = producer.free_slot()
            if slot is not None:
                with MappedArray(request, "main", reshape=False) as mapped:
                    memory = producer.memory(slot)
                    memory[:] = memoryview(mapped.array).cast("B")[: len(memory)]
                producer.send(slot, captured_ns=from_boot(request.get_metadata().get("SensorTimestamp")))
        finally:
            request.release()


def from_boot(boot_ns: int | None) -> int | None:
    """libcamera counts from boot, sleep included; the monotonic clock leaves sleep out."""
    if boot_ns is None:
        return None
    return boot_ns - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns())


def picamera2_list() -> list[dict[str, Any]]:
    """The cameras that libcamera has."""
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise Fault(f"picamera2 is not installed for {sys.executable}: {error}") from error
    found: list[dict[str, Any]] = Picamera2.global_camera_info()
    return found


def run(producer: Producer) -> None:
    """Do what the daemon's wish says."""
    options = producer.wish["options"]
    kind = options["kind"]
    if kind == "gstreamer":
        GStreamer(producer, options["pipeline"]).run()
    elif kind == "picamera2":
        picamera2(producer, options)
    elif kind == "gstreamer-version":
        producer.fail(gst_modules()[0].version_string())
    else:
        producer.fail(json.dumps(picamera2_list()))


def main() -> None:
    """Serve the daemon on the socket whose number is the argument."""
    producer = Producer(socket.socket(fileno=int(sys.argv[1])), ended=lambda: os._exit(0))
    try:
        run(producer)
    except Fault as error:
        producer.fail(str(error))
    except BrokenPipeError:
        pass
    except Exception as error:
        producer.fail(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
