"""A machine of another kernel, emulated: the host's files, read-only, and drivers that this kernel does not have."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .debian import kernel, tool, version
from .initrd import initrd

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "vivid")
OPTIONS = {"vivid": "n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0"}
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
MACHINE = "-M q35 -cpu max -smp 2 -m 1500 -accel tcg,thread=multi -nographic -no-reboot -nic none"
SHARED = "local,path=/,security_model=none,readonly=on,mount_tag=host,multidevs=remap"


def run_on_another_kernel(
    command: str,
    folder: Path,
    *,
    timeout_s: float = 1200,
    extra_modules: tuple[str, ...] = (),
    devices: tuple[str, ...] = (),
) -> str:
    """Boot, run a shell command as root on the host's own files, and return what the console said."""
    linux = kernel("amd64")
    init = INIT.replace("{cwd}", str(Path.cwd())).replace("{command}", command)
    names = (*MODULES, *extra_modules)
    image = initrd(folder / "initrd.img", linux, names, init, busybox=Path(tool("busybox")), options=OPTIONS)
    # The machine ends with the tests, however they end.
    arguments = [tool("setpriv"), "--pdeathsig", "KILL", tool("qemu-system-x86_64"), *MACHINE.split()]
    arguments += ["-kernel", str(linux / f"boot/vmlinuz-{version(linux)}"), "-initrd", str(image), "-virtfs", SHARED]
    arguments += ["-append", "console=ttyS0 quiet panic=-1", *devices]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace")
    assert "rc=0" in done.stdout, done.stdout[-6000:]
    return done.stdout
