"""A machine of another kernel, emulated: the host's files, read-only, and drivers that this kernel does not have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

KERNEL = "EDGEMASK_BOARD_KERNEL"
HOW = (
    "apt-get install qemu-system-x86 busybox-static cpio kmod; apt-get download linux-image-6.1.0-NN-amd64; "
    f"dpkg -x linux-image-*.deb FOLDER; depmod -b FOLDER 6.1.0-NN-amd64; {KERNEL}=FOLDER"
)
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "vivid")
PARAMETERS = {"vivid": "n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0"}
INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
{insmods}
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
for folder in dev proc sys; do $B mount --bind /$folder /host/$folder; done
$B mount -t tmpfs t /host/run
$B chroot /host /bin/sh -c 'export PYTHONDONTWRITEBYTECODE=1 HOME=/run TMPDIR=/run; cd {cwd}; {command}; echo "rc=$?"'
$B poweroff -f
"""
MACHINE = "qemu-system-x86_64 -M q35 -cpu max -smp 2 -m 1500 -accel tcg,thread=multi -nographic -no-reboot -nic none"
SHARED = "local,path=/,security_model=none,readonly=on,mount_tag=host,multidevs=remap"


def run_on_another_kernel(command: str, folder: Path, *, timeout_s: float = 1200) -> str:
    """Boot, run a shell command as root on the host's own files, and return what the console said."""
    root = _kernel()
    version = next((root / "lib/modules").iterdir()).name
    image = _initial_files(root, version, command, folder)
    arguments = ["-kernel", str(root / f"boot/vmlinuz-{version}"), "-initrd", str(image), "-virtfs", SHARED]
    arguments += ["-append", "console=ttyS0 quiet panic=-1"]
    done = subprocess.run(
        [*MACHINE.split(), *arguments], capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace"
    )
    assert "rc=0" in done.stdout, done.stdout[-6000:]
    return done.stdout


def _kernel() -> Path:
    if KERNEL not in os.environ or not shutil.which("qemu-system-x86_64"):
        pytest.skip(f"no kernel to boot: {HOW}")
    return Path(os.environ[KERNEL]).absolute()


def _initial_files(root: Path, version: str, command: str, folder: Path) -> Path:
    tree = folder / "initrd"
    for name in ("bin", "mods", "host", "proc", "sys", "dev"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    insmods = [_taken(line, tree) for name in MODULES for line in _dependencies(root, version, name)]
    init = tree / "init"
    init.write_text(INIT.format(insmods="\n".join(dict.fromkeys(insmods)), command=command, cwd=Path.cwd()))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in tree.rglob("*"))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True
    )
    image = folder / "initrd.img"
    image.write_bytes(packed.stdout)
    return image


def _dependencies(root: Path, version: str, name: str) -> list[Path]:
    """The files of a module and of those it needs, in the order to load them."""
    asked = ["/sbin/modprobe", "-d", str(root), "-S", version, "--show-depends", name]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return [Path(line.split()[1]) for line in told.splitlines() if line.startswith("insmod")]


def _taken(module: Path, tree: Path) -> str:
    shutil.copy(module, tree / "mods" / module.name)
    return f"$B insmod /mods/{module.name} {PARAMETERS.get(module.stem, '')}"
