"""Loops from a network camera to a model as people write them; each prints the number that the model read, a line each.

    python -m benchmarks.pipeline_loops opencv URL MODEL

ends when its standard input does. The model and its threads are the daemon's; the picture is prepared in front of it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import queue
import sys
from multiprocessing import shared_memory
from threading import Thread
from typing import Any

import numpy as np

from benchmarks.pipeline_model import HEIGHT, SIDE, WIDTH

SLOTS = 4


def session_of(path: str) -> Any:
    """ONNX Runtime with one thread."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def tell(session: Any, image: Any) -> None:
    """Run the model on float32 [224, 224, 3] from 0 to 1, and print the number."""
    number, _ = session.run(None, {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis])})
    print(int(number[0]), flush=True)


def small(cv2: Any, picture: Any) -> Any:
    """OpenCV's BGR picture as the model takes it."""
    return cv2.cvtColor(cv2.resize(picture, (SIDE, SIDE)), cv2.COLOR_BGR2RGB).astype(np.float32) * np.float32(1 / 255)


def opencv(url: str, model: str) -> None:
    """Read, prepare, infer, print, and again."""
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    session, capture = session_of(model), cv2.VideoCapture(url)
    while True:
        taken, picture = capture.read()
        if not taken:
            return
        tell(session, small(cv2, picture))


def frigate(url: str, model: str) -> None:
    """Two processes: one reads every picture into shared memory, the other takes them from a short queue.

    As in Frigate, a picture that finds the queue full is skipped.
    """
    memory = shared_memory.SharedMemory(create=True, size=SLOTS * HEIGHT * WIDTH * 3)
    waiting: Any = multiprocessing.Queue(maxsize=2)
    reader = multiprocessing.Process(target=_read, args=(url, memory.name, waiting), daemon=True)
    reader.start()
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    session = session_of(model)
    slots = np.ndarray((SLOTS, HEIGHT, WIDTH, 3), np.uint8, memory.buf)
    while True:
        tell(session, small(cv2, slots[waiting.get()]))


def _read(url: str, name: str, waiting: Any) -> None:
    cv2: Any = importlib.import_module("cv2")
    memory = shared_memory.SharedMemory(name)
    slots = np.ndarray((SLOTS, HEIGHT, WIDTH, 3), np.uint8, memory.buf)
    capture, slot = cv2.VideoCapture(url), 0
    while True:
        taken, _ = capture.read(slots[slot])
        if not taken:
            return
        try:
            waiting.put_nowait(slot)
        except queue.Full:
            continue
        slot = (slot + 1) % SLOTS


def pyav(url: str, model: str) -> None:
    """Decode, let FFmpeg resize, infer, print, and again."""
    av: Any = importlib.import_module("av")
    session = session_of(model)
    with av.open(url, options={"fflags": "nobuffer"}) as container:
        for picture in container.decode(video=0):
            pixels = picture.reformat(SIDE, SIDE, "rgb24", interpolation="BILINEAR").to_ndarray()
            tell(session, pixels.astype(np.float32) * np.float32(1 / 255))


LOOPS = {"opencv": opencv, "frigate": frigate, "pyav": pyav}


def end_with_input() -> None:
    """End this process, and what it started, when standard input ends."""
    # Why not sys.stdin: a forked child would wait for its lock for ever.
    os.read(0, 1)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    Thread(target=end_with_input, daemon=True).start()
    LOOPS[sys.argv[1]](*sys.argv[2:])
