"""Images as those of Raspberry Pi OS are laid out, made of a few files; without a mount, as root or not."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MB = 1 << 20
TOOLS = ("mke2fs", "mkfs.vfat", "mcopy", "sfdisk", "debugfs", "e2fsck")
AARCH64, ARM, X86_64 = 183, 40, 62
PLACES = ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
HOSTS = "127.0.0.1\tlocalhost\n::1\t\tlocalhost\n127.0.1.1\traspberrypi\n"
PASSWD = """root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
pi:x:1000:1000:,,,:/home/pi:{shell}
"""
GROUP = "root:x:0:\nvideo:x:44:pi\npi:x:1000:\n"
CMDLINE = "console=serial0,115200 console=tty1 root=PARTUUID=97da5478-02 rootfstype=ext4 fsck.repair=yes rootwait\n"


def needs_tools() -> None:
    missing = [name for name in TOOLS if shutil.which(name, path=PLACES) is None]
    if missing:
        pytest.skip(f"apt-get install e2fsprogs dosfstools mtools fdisk ({', '.join(missing)} missing)")


def elf(machine: int) -> bytes:
    return struct.pack("<4sBB10xHH", b"\x7fELF", 2, 1, 3, machine) + bytes(9000)


def raspberry_tree(
    folder: Path, *, python: str = "3.11", machine: int = AARCH64, glibc: str = "2.36", shell: str = "/bin/bash"
) -> Path:
    """What of the system matters to a release and to the wishes of its owner."""
    library = {AARCH64: "aarch64-linux-gnu", X86_64: "x86_64-linux-gnu", ARM: "arm-linux-gnueabihf"}[machine]
    files = {
        "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
        "etc/rpi-issue": "Raspberry Pi reference 2024-11-19\n",
        "etc/hostname": "raspberrypi\n",
        "etc/hosts": HOSTS,
        "etc/passwd": PASSWD.format(shell=shell),
        "etc/group": GROUP,
        "usr/lib/userconf-pi/userconf-service": "#!/bin/sh\n",
        "etc/systemd/system/multi-user.target.wants/cron.service": "",
        f"usr/lib/{library}/libc.so.6": f"\x7fELF GNU C Library (Debian GLIBC {glibc}-9+rpt2) stable release version "
        f"{glibc}.\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("home/pi", "usr/bin", "var/lib", "etc/sudoers.d"):
        (folder / name).mkdir(parents=True)
    (folder / f"usr/bin/python{python}").write_bytes(elf(machine))
    (folder / "usr/bin/python3").symlink_to(f"python{python}")
    (folder / "etc/os-release").symlink_to("../usr/lib/os-release")
    return folder


def make_card(
    image: Path, tree: Path, *, table: str = "dos", boot_mb: int = 40, root_mb: int = 80, options: str = ""
) -> Path:
    """An image with a FAT that has cmdline.txt, and an ext4 that has the tree."""
    parts = image.with_suffix(".parts")
    parts.mkdir()
    boot, root = parts / "boot", parts / "root"
    _sized(boot, boot_mb * MB)
    _run("mkfs.vfat", "-F", "32", "-n", "bootfs", str(boot))
    for name, text in {"cmdline.txt": CMDLINE, "config.txt": "arm_64bit=1\n"}.items():
        mtools(boot, name, text.encode())
    _sized(root, root_mb * MB)
    _run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "rootfs", *options.split(), "-d", str(tree), str(root))
    assemble(image, table, boot, root)
    shutil.rmtree(parts)
    return image


@contextmanager
def loop_device(backing: Path, size: int) -> Iterator[Path]:
    """A block device of the kernel's over a file, which is made where there is none."""
    if not backing.exists():
        _sized(backing, size)
    losetup = shutil.which("losetup", path=PLACES)
    if os.geteuid() != 0 or losetup is None:
        pytest.skip("loop devices are root's")
    made = subprocess.run([losetup, "-f", "--show", str(backing)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run([losetup, "-d", str(device)], check=True)


def assemble(image: Path, table: str, boot: Path, root: Path) -> None:
    """A FAT and an ext4 behind a partition table."""
    start, middle = 4 * MB, 4 * MB + boot.stat().st_size
    _sized(image, middle + root.stat().st_size + MB)
    kinds = ("c", "83") if table == "dos" else ("U", "L")
    lines = [f"label: {table}", *(["label-id: 0x97da5478"] if table == "dos" else [])]
    for at, part, kind in ((start, boot, kinds[0]), (middle, root, kinds[1])):
        lines.append(f"start={at // 512},size={part.stat().st_size // 512},type={kind}")
    _run("sfdisk", "-q", str(image), feed="\n".join(lines) + "\n")
    for at, part in ((start, boot), (middle, root)):
        _run("dd", f"if={part}", f"of={image}", "bs=1M", f"seek={at // MB}", "conv=notrunc,sparse")


def mtools(fat: Path, name: str, content: bytes) -> None:
    """Put a file into a FAT."""
    source = fat.with_name(f"{fat.name}-{name}")
    source.write_bytes(content)
    _run("mcopy", "-i", str(fat), str(source), f"::{name}")
    source.unlink()


def _sized(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _run(name: str, *arguments: str, feed: str | None = None) -> None:
    command = [shutil.which(name, path=PLACES) or name, *arguments]
    done = subprocess.run(command, input=feed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
