"""What each source costs the daemon for a frame of 1280 x 720, beside OpenCV's VideoCapture on the same bytes.

    python -m benchmarks.sources [--seconds 5] [--json]
    make bench-compare                    with OpenCV, in an environment of its own

Files and buffers: processor time of this process for one frame, all its threads; lower quartiles of chunks of frames,
taken in turn. Streams: a server in another process shows the test pattern 30 times a second, whose number tells when
the frame in hand was sent; its reader is slower than that. The age is what the way adds, from sending to pixels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.timing import times_ms
from edgemask.listing import columns
from edgemask_runtime.cameras import open_camera
from edgemask_runtime.cameras.conversion import converter
from edgemask_runtime.cameras.gstreamer import GstreamerSettings
from edgemask_runtime.cameras.jpeg import JpegDecoder
from edgemask_runtime.cameras.local import SocketSettings
from edgemask_runtime.cameras.pattern import PatternCamera, PatternSettings, number_in
from edgemask_runtime.cameras.stream import StreamSettings
from edgemask_runtime.cameras.video import VideoSettings
from edgemask_runtime.errors import UserError
from edgemask_runtime.manifest import FrameInput

WIDTH, HEIGHT, FPS = 1280, 720, 30
PHOTOGRAPHS = Path("tests/images")
CHUNK = 10
SLOW_S = 0.1
SHARE_READ = 3

Take = Callable[[], Any]


def frame(colour: Any) -> FrameInput:
    """The graph's frame."""
    return FrameInput(WIDTH, HEIGHT, colour, name="frame", dtype="uint8", batch=None)


def picture(number: int) -> Any:
    """A photograph that wanders behind the test pattern's number, RGB: noise and flat areas cost codecs nothing."""
    shown = PatternCamera(PatternSettings(), frame("rgb")).drawn(number)
    photograph = np.asarray(Image.open(PHOTOGRAPHS / "rocket.jpg").convert("RGB").resize((WIDTH, HEIGHT // 2)))
    shown[HEIGHT // 2 :] = np.roll(photograph, 4 * number, axis=1)
    return shown


def write_video(path: Path, codec: str, pixels: str, frames: int = 60, **options: str) -> None:
    """A video of a second or two."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())


def ours(path: Path, colour: str, every: int = 1) -> Take:
    """Reads `CHUNK` frames; of `every` one only the last is looked at."""
    shots = iter(open_camera("video", VideoSettings(path, fps=0, loop=True), frame(colour)))

    def take() -> None:
        for number in range(CHUNK * every):
            shot = next(shots)
            if number % every == every - 1:
                shot.read()

    return take


def theirs(path: Path, every: int = 1, *, grab: bool = False) -> Take:
    """OpenCV, which gives BGR; `grab` leaves out what it can of the frames that nobody looks at."""
    import cv2

    cv2.setNumThreads(1)
    capture: Any = cv2.VideoCapture(str(path))

    def step(looked_at: bool) -> None:
        done = capture.grab() if grab and not looked_at else capture.read()[0]
        if not done:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)

    def take() -> None:
        for number in range(CHUNK * every):
            step(number % every == every - 1)

    return take


def chunked(read: Take) -> Take:
    """`CHUNK` times."""
    return lambda: [read() for _ in range(CHUNK)]


def buffers() -> dict[str, Take]:
    """What is done to one buffer of a kernel's camera."""
    import simplejpeg

    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture(0)), quality=85, colorsubsampling="422")
    raw = bytes(PatternCamera(PatternSettings(), frame("yuyv")).drawn(0))
    yuyv, same = memoryview(raw), frame("yuyv").format
    small = FrameInput(WIDTH // 2, HEIGHT // 2, "rgb", name="frame", dtype="uint8", batch=None)
    ways: dict[str, Take] = {
        "buffer YUYV -> yuyv: a view": partial(converter(same, same), yuyv),
        "buffer YUYV -> rgb: FFmpeg": partial(converter(same, frame("rgb").format), yuyv),
        "buffer MJPG -> rgb": partial(JpegDecoder(frame("rgb")).decode, jpeg),
        "buffer MJPG -> rgb, half size": partial(JpegDecoder(small).decode, jpeg),
        "buffer MJPG -> nv12": partial(JpegDecoder(frame("nv12")).decode, jpeg),
    }
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        packed = np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH, 2)
        ways["buffer YUYV -> bgr: OpenCV"] = partial(cv2.cvtColor, packed, cv2.COLOR_YUV2BGR_YUYV)
        ways["buffer MJPG -> bgr: OpenCV"] = partial(cv2.imdecode, np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return {name: chunked(read) for name, read in ways.items()}


def files(folder: Path) -> dict[str, Take]:
    """Ways to read a video, and to read one frame of three, as a model does that takes three frames' time."""
    h264, mjpeg = folder / "a.mp4", folder / "a.avi"
    write_video(h264, "libx264", "yuv420p", preset="fast", tune="zerolatency", threads="1")
    write_video(mjpeg, "mjpeg", "yuvj422p", **{"q:v": "4"})
    ways = {
        "H.264 -> nv12": ours(h264, "nv12"),
        "H.264 -> rgb": ours(h264, "rgb"),
        "H.264 -> rgb, 1 of 3 read": ours(h264, "rgb", SHARE_READ),
        "Motion JPEG -> rgb": ours(mjpeg, "rgb"),
        "Motion JPEG -> rgb, 1 of 3 read": ours(mjpeg, "rgb", SHARE_READ),
    }
    if importlib.util.find_spec("cv2"):
        ways |= {
            "H.264 -> bgr: OpenCV": theirs(h264),
            "H.264 -> bgr, 1 of 3 retrieved: OpenCV": theirs(h264, SHARE_READ, grab=True),
            "Motion JPEG -> bgr: OpenCV": theirs(mjpeg),
            "Motion JPEG -> bgr, 1 of 3 retrieved: OpenCV": theirs(mjpeg, SHARE_READ, grab=True),
        }
    return ways


def serve(ready: Any, sent_s: Any) -> None:
    """Motion JPEG over HTTP; notes when each number was sent."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    import simplejpeg

    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(picture(number)), quality=85) for number in range(len(sent_s))]

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            begun_s = time.monotonic()
            for count, jpeg in enumerate(chain.from_iterable(repeat(jpegs))):
                time.sleep(max(0.0, begun_s + count / FPS - time.monotonic()))
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                sent_s[count % len(sent_s)] = time.monotonic()
                self.wfile.write(head + jpeg + b"\r\n")

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.put(server.server_port)
    server.serve_forever()


def our_stream(url: str) -> Generator[Any, None, None]:
    """The daemon's source in a thread of its own, as the pipeline has it: what is not taken is not decoded."""
    with closing(open_camera("stream", StreamSettings(url, timeout_s=60), frame("rgb"))) as camera:
        for shot in camera:
            yield shot.read()


def their_stream(url: str) -> Generator[Any, None, None]:
    """The usual loop."""
    import cv2

    cv2.setNumThreads(1)
    capture: Any = cv2.VideoCapture(url)
    while (read := capture.read())[0]:
        yield read[1]
    capture.release()


def watched(pixels: Iterator[Any], sent_s: Any, seconds: float) -> dict[str, float]:
    """Take a frame every `SLOW_S` as a slow model does; its age, and this process's time for each frame sent."""
    ages: list[float] = []
    # Until the queue is there, if the way has one.
    for _ in range(20):
        next(pixels)
        time.sleep(SLOW_S)
    begun_s, cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - begun_s < seconds:
        shown, taken_s = next(pixels), time.monotonic()
        ages.append(taken_s - sent_s[number_in(shown, frame("rgb")) % len(sent_s)])
        time.sleep(SLOW_S)
    passed_s, spent_s = time.monotonic() - begun_s, time.process_time() - cpu_s
    return figures(ages, spent_s / (passed_s * FPS))


def streams(seconds: float) -> dict[str, dict[str, float]]:
    """Ages and processor time of Motion JPEG over HTTP, read slower than it comes."""
    context = multiprocessing.get_context("spawn")
    ready, sent_s = context.Queue(), context.Array("d", 300, lock=False)
    server = context.Process(target=serve, args=(ready, sent_s), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ready.get(timeout=120)}/cam.mjpg"
        ways = {"HTTP Motion JPEG -> rgb": our_stream}
        if importlib.util.find_spec("cv2"):
            ways["HTTP Motion JPEG -> bgr: OpenCV"] = their_stream
        found = {}
        for name, way in ways.items():
            with closing(way(url)) as pixels:
                found[name] = watched(pixels, sent_s, seconds)
        return found
    finally:
        server.kill()
        server.join()


def offer(path: str) -> None:
    """A program that has a frame 30 times a second, and copies it into shared memory."""
    from edgemask_runtime.cameras.producer import wait_for_daemon

    content = PatternCamera(PatternSettings(), frame("nv12")).drawn(0).tobytes()
    producer = wait_for_daemon(path)
    producer.offer(width=WIDTH, height=HEIGHT, colour="nv12")
    while not producer.closed:
        captured_ns, slot = time.monotonic_ns(), producer.free_slot()
        if slot is not None:
            producer.memory(slot)[:] = content
            producer.send(slot, captured_ns=captured_ns)
        time.sleep(1 / FPS)


def handed_over(seconds: float) -> dict[str, dict[str, float]]:
    """What it costs to take frames from another process, and how old they are: every frame is read."""
    context = multiprocessing.get_context("spawn")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.sock"
        program = context.Process(target=offer, args=(str(path),), daemon=True)
        program.start()
        while not path.exists():
            time.sleep(0.05)
        time.sleep(0.2)
        found["shared memory NV12 -> nv12"] = followed("socket", SocketSettings(path, timeout_s=60), seconds)
        program.kill()
        program.join()
    with suppress(UserError):
        settings = GstreamerSettings(f"videotestsrc is-live=true ! video/x-raw,framerate={FPS}/1", timeout_s=60)
        found["GStreamer videotestsrc -> nv12"] = followed("gstreamer", settings, seconds)
    return found


def followed(kind: str, settings: Any, seconds: float) -> dict[str, float]:
    """Read every frame and give it back."""
    ages: list[float] = []
    with closing(open_camera(kind, settings, frame("nv12"))) as camera:
        shots = iter(camera)
        next(shots).release()
        begun_s, cpu_s = time.monotonic(), time.process_time()
        while time.monotonic() - begun_s < seconds:
            shot = next(shots)
            shot.read()
            ages.append((time.monotonic_ns() - (shot.captured_ns or 0)) / 1e9)
            shot.release()
        return figures(ages, (time.process_time() - cpu_s) / len(ages))


def figures(ages_s: list[float], cpu_s: float) -> dict[str, float]:
    """A row of the table of streams."""
    low, high = np.percentile(1000 * np.array(ages_s), [50, 99])
    return {"cpu_us_a_frame_sent": 1e6 * cpu_s, "age_p50_ms": float(low), "age_p99_ms": float(high)}


def measure(seconds: float) -> dict[str, Any]:
    """Microseconds of processor time a frame read, and what streams add."""
    with tempfile.TemporaryDirectory() as folder:
        times = times_ms({**buffers(), **files(Path(folder))}, seconds)
    return {
        "us": {name: 1000 * ms / CHUNK for name, ms in times.items()},
        "streams": {**streams(seconds), **handed_over(seconds)},
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(columns(("way", "CPU us a frame read"), [(name, f"{us:.0f}") for name, us in found["us"].items()]))
    rows = [(name, *(f"{value:.3g}" for value in row.values())) for name, row in found["streams"].items()]
    print(columns(("stream", "CPU us a frame sent", "age p50 ms", "age p99 ms"), rows))
    if not importlib.util.find_spec("cv2"):
        print("not installed and left out: cv2 (make bench-compare has it)", file=sys.stderr)


if __name__ == "__main__":
    main()
