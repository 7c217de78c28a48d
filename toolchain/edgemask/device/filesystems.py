"""The FAT and the ext4 inside a disk's image, read and written where they lie: no mount, no loop device, no root.

Through mtools and e2fsprogs, which take an offset. debugfs ends with 0 whatever happened, so nothing that was written
counts before it was read back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from edgemask.device.partitions import Partition
from edgemask.device.tools import run, said
from edgemask.errors import UserError

SAFE = r"[A-Za-z0-9._/+@-]+"
EXT4_MAGIC_AT, EXT4_MAGIC = 1080, b"\x53\xef"
FAT_MAGICS = ((54, b"FAT"), (82, b"FAT32"))
MISSING = b"File not found by ext2_lookup"
DAMAGED = "download the image again and compare its checksum"


@dataclass(frozen=True)
class Placed:
    """A file to put into an image: its content, or the file that has it; or a symbolic link's target."""

    path: str
    content: bytes | Path | None = None
    link: str | None = None
    mode: int = 0o644
    owner: int = 0
    """User and group: Raspberry Pi OS gives the first user the same number for both."""


@dataclass(frozen=True)
class Entry:
    """What a name in an ext4 stands for. `link` is a short symbolic link's target."""

    kind: str
    mode: int
    owner: int
    group: int
    size: int
    link: str | None


def has_fat(image: Path, at: Partition) -> bool:
    """Whether the partition holds a FAT."""
    with image.open("rb") as file:
        file.seek(at.start)
        sector = file.read(512)
    return sector[510:] == b"\x55\xaa" and any(sector[place:].startswith(magic) for place, magic in FAT_MAGICS)


def has_ext4(image: Path, at: Partition) -> bool:
    """Whether the partition holds an ext2, ext3 or ext4."""
    with image.open("rb") as file:
        file.seek(at.start + EXT4_MAGIC_AT)
        return file.read(2) == EXT4_MAGIC


class Fat:
    """The FAT in a partition of an image."""

    def __init__(self, image: Path, at: Partition) -> None:
        self._image = image
        self._at = at

    def names(self) -> set[str]:
        """The names in its top folder, in lower case as FAT compares them."""
        lines = self._run("mdir", "-b", "-a", "::").decode("utf-8", "replace").splitlines()
        return {line.removeprefix("::/").strip("/").lower() for line in lines if line.startswith("::/")}

    def free_bytes(self) -> int:
        """What is free in it."""
        found = re.search(rb"([0-9 ]+) bytes free", self._run("mdir", "-a", "::"))
        return int(found[1].replace(b" ", b"")) if found else 0

    def read(self, name: str) -> bytes:
        """A file's content."""
        return self._run("mcopy", f"::/{name}", "-")

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one of that name, and read it back."""
        with TemporaryDirectory() as folder:
            source = Path(folder) / "content"
            source.write_bytes(content)
            self._run("mcopy", "-o", str(source), f"::/{name}")
        if self.read(name) != content:
            raise UserError(f"{self._image}: {name} in its boot partition is not as it was written", DAMAGED)

    def _run(self, command: str, *arguments: str) -> bytes:
        with _safe_name(self._image) as image:
            done = run([command, "-i", f"{image}@@{self._at.start}", *arguments])
        if done.returncode != 0:
            raise UserError(f"{self._image}: its boot partition: {said(done)}", DAMAGED)
        return done.stdout


class Ext4:
    """The ext4 in a partition of an image. Paths are absolute and hold nothing that debugfs would read as its own."""

    def __init__(self, image: Path, at: Partition) -> None:
        self._image = image
        self._at = at

    def check(self) -> None:
        """UserError unless e2fsck finds nothing to mend."""
        with _safe_name(self._image) as image:
            done = run(["e2fsck", "-f", "-n", f"{image}?offset={self._at.start}"])
        if done.returncode != 0:
            hint = f"{DAMAGED}; an image of a card that has run is made when it is not mounted"
            raise UserError(f"{self._image}: its system partition is not sound: {said(done)}", hint)

    def free_bytes(self) -> int:
        """What root may still write into it."""
        text = self._ask("show_super_stats -h").decode("utf-8", "replace")
        blocks, size = (re.search(rf"^{name}:\s+(\d+)$", text, re.M) for name in ("Free blocks", "Block size"))
        if not blocks or not size:
            raise UserError(f"{self._image}: its system partition cannot be read", DAMAGED)
        return int(blocks[1]) * int(size[1])

    def entry(self, path: str) -> Entry | None:
        """What is at a path, the link itself if it is one; None if there is nothing."""
        return _entry(self._ask(f"stat {_safe(path)}").decode("utf-8", "replace"))

    def read(self, path: str) -> bytes | None:
        """A regular file's content; None if there is none."""
        return self._ask(f"cat {_safe(path)}") if self._is_file(path) else None

    def names(self, path: str) -> set[str]:
        """The names in a folder."""
        lines = self._ask(f"ls -p {_safe(path)}").decode("utf-8", "replace").splitlines()
        return {fields[5] for line in lines if len(fields := line.split("/")) > 6} - {".", ".."}

    def write(self, files: Sequence[Placed]) -> None:
        """Put files and links into it, in place of what is there, and read every one back."""
        with TemporaryDirectory() as staging:
            commands = [line for place, one in enumerate(files) for line in self._commands(one, place, Path(staging))]
            made = self._folders(files)
            script = Path(staging) / "commands"
            script.write_text("\n".join([*made, *commands]) + "\n")
            self._run("-w", "-f", str(script), folder=Path(staging))
        for one in files:
            self._verify(one)

    def own(self, path: str, mode: int, owner: int) -> None:
        """Give a folder rights and an owner."""
        lines = [f"sif {_safe(path)} mode 0{0o040000 | mode:o}"]
        lines += [f"sif {_safe(path)} {whose} {owner}" for whose in ("uid", "gid")]
        with TemporaryDirectory() as staging:
            script = Path(staging) / "commands"
            script.write_text("\n".join(lines) + "\n")
            self._run("-w", "-f", str(script))
        found = self.entry(path)
        if found is None or (found.kind, found.mode, found.owner, found.group) != ("directory", mode, owner, owner):
            raise self._unlike(path)

    def _folders(self, files: Sequence[Placed]) -> list[str]:
        """The commands for folders that are not there yet, outer ones first."""
        wanted = {str(parent) for one in files for parent in PurePosixPath(_safe(one.path)).parents}
        return [f"mkdir {folder}" for folder in sorted(wanted) if folder != "/" and self.entry(folder) is None]

    def _commands(self, one: Placed, place: int, staging: Path) -> Iterator[str]:
        path = PurePosixPath(_safe(one.path))
        if self.entry(one.path) is not None:
            yield f"rm {path}"
        yield f"cd {path.parent}"
        if one.link is not None:
            yield f"symlink {path.name} {_safe(one.link)}"
            return
        source = staging / str(place)
        _stage(one, source)
        yield f"write {source.name} {path.name}"
        yield f"sif {path.name} mode 0{0o100000 | one.mode:o}"
        yield from (f"sif {path.name} {whose} {one.owner}" for whose in ("uid", "gid"))

    def _verify(self, one: Placed) -> None:
        found = self.entry(one.path)
        if found is None:
            raise self._unlike(one.path)
        if one.link is not None:
            same = found.kind == "symlink" and found.link == one.link
        else:
            rights = (found.kind, found.mode, found.owner, found.group)
            same = rights == ("regular", one.mode, one.owner, one.owner) and self._digest(one.path) == _digest(one)
        if not same:
            raise self._unlike(one.path)

    def _digest(self, path: str) -> str:
        with TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            self._run("-R", f"dump {_safe(path)} copy", folder=Path(folder))
            with copy.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

    def _is_file(self, path: str) -> bool:
        found = self.entry(path)
        return found is not None and found.kind == "regular"

    def _ask(self, request: str) -> bytes:
        return self._run("-R", request)

    def _run(self, *arguments: str, folder: Path | None = None) -> bytes:
        with _safe_name(self._image) as image:
            done = run(["debugfs", *arguments, f"{image}?offset={self._at.start}"], folder)
        if done.returncode != 0:
            raise UserError(f"{self._image}: its system partition: {said(done)}", DAMAGED)
        return done.stdout

    def _unlike(self, path: str) -> UserError:
        return UserError(
            f"{self._image}: {path} in its system partition is not as it was written",
            "is the disk with the image full or failing? try again with --out on another disk",
        )


def _entry(text: str) -> Entry | None:
    """What debugfs' `stat` tells."""
    head = re.search(r"Type: (\w+)\s+Mode:\s+(\d+)", text)
    whose = re.search(r"User:\s+(\d+)\s+Group:\s+(\d+)", text)
    size = re.search(r"Size: (\d+)", text)
    if not head or not whose or not size:
        return None
    link = re.search(r'^Fast link dest: "(.*)"$', text, re.M)
    return Entry(head[1], int(head[2], 8), int(whose[1]), int(whose[2]), int(size[1]), link[1] if link else None)


def _stage(one: Placed, source: Path) -> None:
    if isinstance(one.content, Path):
        source.symlink_to(one.content.absolute())
    else:
        source.write_bytes(one.content or b"")


def _digest(one: Placed) -> str:
    if not isinstance(one.content, Path):
        return hashlib.sha256(one.content or b"").hexdigest()
    with one.content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safe(path: str) -> str:
    if not re.fullmatch(SAFE, path):
        raise ValueError(f"not a path for debugfs: {path!r}")
    return path


@contextmanager
def _safe_name(image: Path) -> Iterator[Path]:
    """The image under a name without the signs that mark options and offsets to those programs."""
    with TemporaryDirectory(prefix="edgemask-") as folder:
        link = Path(folder) / "image"
        link.symlink_to(image.absolute())
        yield link
