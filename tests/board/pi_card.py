"""The emulated board's system as a card of Raspberry Pi OS has it: MBR, FAT with cmdline.txt, ext4; booted from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from device.cards import MB, assemble, mtools

from edgemask.device.filesystems import Ext4, Placed
from edgemask.device.partitions import Partition, partitions

from . import rootfs
from .debian import cached, kernel, tool
from .initrd import initrd
from .machine import Board

CMDLINE = "console=ttyAMA0 quiet panic=-1 root=/dev/vda2 rootfstype=ext4 fsck.repair=yes rootwait\n"
FAT = ("vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1")
# What the kernel of a Raspberry Pi does by itself: Debian's has its disk and file systems as modules.
INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
{insmods}
for word in $($B cat /proc/cmdline); do case $word in root=*) root=${word#root=};; esac; done
n=0
while [ ! -b $root ] && [ $n -lt 600 ]; do n=$((n+1)); $B usleep 100000; done
$B mount -o rw $root /root || $B poweroff -f
$B umount /proc; $B umount /sys; $B mount --move /dev /root/dev
exec $B switch_root /root /sbin/init
"""
LIKE_RASPBERRY_PI_OS = {
    "/etc/rpi-issue": "Raspberry Pi reference, emulated\n",
    "/etc/fstab": "/dev/vda1 /boot/firmware vfat defaults 0 2\n/dev/vda2 / ext4 defaults,noatime 0 1\n",
    "/boot/firmware/not-mounted": "",
}


def card() -> Path:
    """The image, as it would be downloaded; made once."""
    here = Path(__file__).parent
    recipe = "".join((here / name).read_text() for name in ("debian.py", "initrd.py", "rootfs.py", "pi_card.py"))
    return cached("card", recipe, _make) / "raspios.img"


def _make(folder: Path) -> None:
    boot, root = folder / "boot", folder / "root"
    with boot.open("wb") as file:
        file.truncate(64 * MB)
    subprocess.run([tool("mkfs.vfat"), "-F", "32", "-n", "bootfs", str(boot)], check=True, capture_output=True)
    mtools(boot, "cmdline.txt", CMDLINE.encode())
    subprocess.run(["cp", "--sparse=always", str(rootfs.disk()), str(root)], check=True)
    Ext4(root, Partition(1, 0, root.stat().st_size)).write(
        [Placed(path, text.encode()) for path, text in LIKE_RASPBERRY_PI_OS.items()]
    )
    assemble(folder / "raspios.img", "dos", boot, root)
    initrd(
        folder / "initrd.img", kernel("arm64"), (*rootfs.FIRST, *FAT), INIT, busybox=rootfs.tree() / "usr/bin/busybox"
    )
    for part in (boot, root):
        part.unlink()


def insert(image: Path, folder: Path, *more: str) -> Board:
    """A board with this card in it; the kernel's words are those on the card."""
    vmlinuz, _ = rootfs.boot_files()
    start = partitions(image)[0].start
    words = subprocess.run(
        [tool("mcopy"), "-i", f"{image}@@{start}", "::cmdline.txt", "-"], check=True, capture_output=True, text=True
    ).stdout
    return Board(folder, disk=image, boot=(vmlinuz, card().with_name("initrd.img"), words.strip()), more=more)
