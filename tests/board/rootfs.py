"""The board's root file system: Debian 13 for arm64 with systemd, sshd, Python 3.13, a camera and a CAN bus."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .debian import cached, kernel, modules, tool, unpack, version
from .initrd import initrd

PACKAGES = tuple(
    "base-files base-passwd bash coreutils dash grep sed findutils mawk util-linux mount login passwd procps hostname "
    "gzip tar systemd-sysv udev dbus kmod iproute2 openssh-server sudo python3 libstdc++6 can-utils e2fsprogs "
    "ca-certificates busybox-static".split()
)
FIRST = ("virtio_pci", "virtio_mmio", "virtio_blk", "ext4")
LATER = ("virtio_net", "virtio_rng", "vivid", "vcan", "can_raw", "autofs4")
SLOW = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer "
    "getty.target ldconfig.service proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-firstboot.service "
    "systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-logind.service "
    "systemd-sysusers.service systemd-update-done.service systemd-pcrphase.service systemd-tpm2-setup.service "
    "systemd-tpm2-setup-early.service sshd-keygen.service systemd-remount-fs.service "
    "systemd-networkd-persistent-storage.service dev-hugepages.mount "
    "dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount "
    "sys-kernel-config.mount modprobe@fuse.service modprobe@configfs.service modprobe@drm.service "
    "systemd-udev-load-credentials.service systemd-pcrmachine.service systemd-pcrphase-sysinit.service"
).split()
WANTED = {"multi-user.target": ("ssh.service", "systemd-networkd.service")}
USERS = {
    "messagebus": (101, "/nonexistent", "/usr/sbin/nologin"),
    "sshd": (102, "/run/sshd", "/usr/sbin/nologin"),
    "systemd-network": (103, "/", "/usr/sbin/nologin"),
    "pi": (1000, "/home/pi", "/bin/bash"),
}
GROUPS = {"input": 104, "render": 105, "kvm": 106, "sgx": 107, "clock": 108, "systemd-journal": 109}
FILES = {
    "etc/hostname": "board\n",
    "etc/machine-id": "e09fe2a5c0de4a0db0a2d0ed9e3a5c01\n",
    "etc/hosts": "127.0.0.1 localhost board\n",
    "etc/ssh/sshd_config": "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxSessions 30\n"
    "LoginGraceTime 0\n"
    "Subsystem sftp /usr/lib/openssh/sftp-server\n",
    "etc/sudoers.d/pi": "pi ALL=(ALL) NOPASSWD: ALL\n",
    **{f"etc/pam.d/common-{kind}": f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session")},
    "etc/pam.d/common-session-noninteractive": "session required pam_permit.so\n",
    "etc/pam.d/common-password": "password required pam_permit.so\n",
    "etc/systemd/network/10-lan.network": "[Match]\nDriver=virtio_net\n"
    "[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n",
    "etc/systemd/network/20-can.netdev": "[NetDev]\nName=vcan0\nKind=vcan\n",
    "etc/systemd/network/20-can.network": "[Match]\nName=vcan0\n"
    "[Link]\nActivationPolicy=always-up\nRequiredForOnline=no\n",
    "etc/modules-load.d/board.conf": "vivid\ncan_raw\n",
    "etc/modprobe.d/board.conf": "options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0\n",
    # Emulated processors are slow: what takes a second on a board may take minutes here.
    "etc/systemd/system/edgemaskd.service.d/emulated.conf": "[Service]\nTimeoutStartSec=900\nWatchdogSec=300\n",
    "etc/systemd/system.conf.d/board.conf": "[Manager]\nDefaultTimeoutStartSec=600\nDefaultDeviceTimeoutSec=600\n",
    "etc/systemd/journald.conf.d/board.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n",
}
INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
{insmods}
n=0
while [ ! -b /dev/vda ] && [ $n -lt 600 ]; do n=$((n+1)); $B usleep 100000; done
$B mount -o rw /dev/vda /root || $B poweroff -f
$B umount /proc; $B umount /sys; $B mount --move /dev /root/dev
exec $B switch_root /root /sbin/init
"""
SIZE = "2500M"


def tree() -> Path:
    """A folder with the board's files, for chroots and qemu-user too: read-only, whoever writes takes a copy."""
    return _made() / "tree"


def disk() -> Path:
    """The board's disk as its maker left it (raw, ext4, 2.5 GB, sparse): machines write to overlays of it."""
    return _made() / "disk.img"


def boot_files() -> tuple[Path, Path]:
    """The kernel and the first files of the board."""
    made = _made()
    return made / "vmlinuz", made / "initrd.img"


def login_key() -> Path:
    """The private key that root and pi of the board let in."""
    return _made() / "id_ed25519"


def host_key() -> str:
    """The public key of the board's sshd: what stands in known_hosts."""
    return (tree() / "etc/ssh/ssh_host_ed25519_key.pub").read_text()


def _made() -> Path:
    here = Path(__file__).parent
    recipe = "".join((here / name).read_text() for name in ("debian.py", "initrd.py", "rootfs.py"))
    return cached("arm64", recipe, _make)


def _make(folder: Path) -> None:
    tree = folder / "tree"
    unpack(PACKAGES, "arm64", tree)
    linux = kernel("arm64")
    shutil.copy(linux / f"boot/vmlinuz-{version(linux)}", folder / "vmlinuz")
    initrd(folder / "initrd.img", linux, FIRST, INIT, busybox=tree / "usr/bin/busybox")
    _modules(linux, tree)
    _people(tree)
    _settings(tree)
    _keys(folder, tree)
    made = ["-q", "-t", "ext4", "-L", "board", "-d", str(tree), str(folder / "disk.img"), SIZE]
    subprocess.run([tool("mke2fs"), *made], check=True, timeout=600, stdout=subprocess.DEVNULL)


def _modules(linux: Path, tree: Path) -> None:
    """Only those that the board needs: all of them are 100 MB."""
    for name in LATER:
        for path in modules(linux, name):
            kept = tree / "usr" / path.relative_to(linux)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept)
    for path in (linux / "lib/modules" / version(linux)).glob("modules.*"):
        shutil.copy(path, tree / "usr/lib/modules" / version(linux))
    subprocess.run([tool("depmod"), "-b", str(tree), version(linux)], check=True)


def _people(tree: Path) -> None:
    """What the packages' scripts would have made of base-passwd's masters."""
    masters, etc = tree / "usr/share/base-passwd", tree / "etc"
    lines = [f"{name}:x:{number}:{number}::{home}:{shell}\n" for name, (number, home, shell) in USERS.items()]
    passwd = (masters / "passwd.master").read_text().replace(":*:", ":x:") + "".join(lines)
    (etc / "passwd").write_text(passwd)
    groups = [f"{name}:x:{number}:\n" for name, number in GROUPS.items()]
    groups += [f"{name}:x:{number}:\n" for name, (number, _, _) in USERS.items()]
    (etc / "group").write_text((masters / "group.master").read_text().replace(":*:", ":x:") + "".join(groups))
    (etc / "shadow").write_text("".join(f"{line.split(':')[0]}:*:20000:0:99999:7:::\n" for line in passwd.splitlines()))
    (etc / "shadow").chmod(0o640)
    os.chown(etc / "shadow", 0, 42)


def _settings(tree: Path) -> None:
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "etc/sudoers.d/pi").chmod(0o440)
    (tree / "usr/bin/awk").symlink_to("mawk")
    # As where Avahi is: releases are announced there.
    (tree / "etc/avahi/services").mkdir(parents=True)
    units = tree / "etc/systemd/system"
    for unit in SLOW:
        (units / unit).symlink_to("/dev/null")
    for target, wanted in WANTED.items():
        (units / f"{target}.wants").mkdir()
        for unit in wanted:
            (units / f"{target}.wants" / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")


def _keys(folder: Path, tree: Path) -> None:
    """The board's own host key, and a key of this cache's to log in with."""
    key, host = folder / "id_ed25519", tree / "etc/ssh/ssh_host_ed25519_key"
    for path, comment in ((key, "board-tests"), (host, "board")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)
    for home, owner in (("root", 0), ("home/pi", 1000)):
        allowed = tree / home / ".ssh/authorized_keys"
        allowed.parent.mkdir(parents=True, mode=0o700)
        shutil.copy(f"{key}.pub", allowed)
        for path in (tree / home, allowed.parent, allowed):
            os.chown(path, owner, owner)
