"""What an image holds: its operating system, processor, Python and C library; and what a release asks of them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from edgemask.device.filesystems import Ext4, Fat, has_ext4, has_fat
from edgemask.device.partitions import partitions
from edgemask.errors import UserError
from edgemask_runtime.release import Release, ReleaseManifest

MACHINES = {40: "armv7l", 62: "x86_64", 183: "aarch64"}
LIBRARIES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
ELF_MACHINE = struct.Struct("<4s14xH")
GLIBC = rb"GNU C Library [^\n]*? version (\d+\.\d+)"
OS_RELEASE, ISSUE, PYTHON = "/usr/lib/os-release", "/etc/rpi-issue", "/usr/bin/python3"
OURS = "take an image of Raspberry Pi OS (64-bit), Bookworm or newer, with or without desktop"
MAKER = "raspberrypi,"


@dataclass(frozen=True)
class OsImage:
    """An image of Raspberry Pi OS: its two file systems, and what of its system matters to a release."""

    path: Path
    boot: Fat
    root: Ext4
    title: str
    arch: str
    python: str
    glibc: str


def open_os_image(path: Path) -> OsImage:
    """Read an image; UserError says why no release can be put into it."""
    found = partitions(path)
    boots = [fat for fat in (Fat(path, at) for at in found if has_fat(path, at)) if "cmdline.txt" in fat.names()]
    roots = [ext4 for ext4 in (Ext4(path, at) for at in found if has_ext4(path, at)) if ext4.entry(OS_RELEASE)]
    if len(roots) != 1 or len(boots) != 1:
        counted = f"{len(boots)} boot partitions with cmdline.txt and {len(roots)} partitions with a system"
        raise UserError(f"{path}: no image of Raspberry Pi OS: {counted}, not one of each", OURS)
    return _read(path, boots[0], roots[0])


def check_fits(image: OsImage, release: Release) -> None:
    """UserError unless the release can run on what the image holds."""
    manifest = release.manifest
    for reason in _misfits(image, manifest):
        hint = f"{OURS}; or build for what it holds (`edgemask targets`)"
        raise UserError(f"{image.path}: {image.title} cannot run {release.path.name}: {reason}", hint)


def _misfits(image: OsImage, manifest: ReleaseManifest) -> list[str]:
    pythons = ", ".join(sorted(manifest.environments, key=_number))
    problems = {
        f"it is for {', '.join(manifest.boards)}": bool(manifest.boards)
        and not any(board.startswith(MAKER) for board in manifest.boards),
        f"it is for {manifest.arch}, the image for {image.arch}": manifest.arch not in ("any", image.arch),
        f"it is for Python {pythons}, the image has {image.python}": image.python not in manifest.environments,
        f"it needs glibc {manifest.glibc}, the image has {image.glibc}": _number(image.glibc) < _number(manifest.glibc),
    }
    return [reason for reason, holds in problems.items() if holds]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _read(path: Path, boot: Fat, root: Ext4) -> OsImage:
    title = _title(root, path)
    if root.entry(ISSUE) is None:
        raise UserError(f"{path}: holds {title}, not Raspberry Pi OS ({ISSUE} is missing)", OURS)
    python = root.entry(PYTHON)
    version = re.fullmatch(r"python(3\.\d+)", python.link or "") if python else None
    if version is None:
        raise UserError(f"{path}: {title} has no {PYTHON}", OURS)
    arch = _arch(root.read(f"/usr/bin/{version[0]}") or b"")
    if arch not in LIBRARIES:
        raise UserError(f"{path}: {title} is 32-bit ({arch}): the wheels of a release are for 64-bit systems", OURS)
    root.check()
    return OsImage(path, boot, root, title, arch, version[1], _glibc(root, path, arch))


def _title(root: Ext4, path: Path) -> str:
    text = (root.read(OS_RELEASE) or b"").decode("utf-8", "replace")
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', text, re.M)
    if found is None:
        raise UserError(f"{path}: {OS_RELEASE} in it names no system", OURS)
    return found[1]


def _arch(program: bytes) -> str:
    if len(program) < ELF_MACHINE.size:
        return "unknown"
    magic, machine = ELF_MACHINE.unpack_from(program)
    return MACHINES.get(machine, f"machine {machine}") if magic == b"\x7fELF" else "unknown"


def _glibc(root: Ext4, path: Path, arch: str) -> str:
    found = re.search(GLIBC, root.read(f"/usr/lib/{LIBRARIES[arch]}/libc.so.6") or b"")
    if found is None:
        raise UserError(f"{path}: its C library tells no version", OURS)
    return found[1].decode()
