"""NVIDIA's own commands that put an operating system onto a Jetson; printed, never run.

They write the boot firmware too, need an Ubuntu host and NVIDIA's packages, and change with each Jetson Linux: after
the Jetson Linux Developer Guide, "Quick Start" and "Flashing Support", of the release that each module names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgemask.errors import UserError
from edgemask_runtime.release import ReleaseManifest

MAKER, ARCHS = "nvidia,", ("any", "aarch64")
ORIN, THOR = "36.4.4", "38.4"
INITRD = "sudo ./tools/kernel_flash/l4t_initrd_flash.sh"
NVME = "--external-device nvme0n1p1 -c tools/kernel_flash/flash_l4t_t234_nvme.xml"
QSPI = '-p "-c bootloader/generic/cfg/flash_t234_qspi.xml"'
SHOWN = "--showlogs --network usb0"
SMALL = f"{INITRD} {NVME} {QSPI} {SHOWN} jetson-orin-nano-devkit-super internal"
BUTTONS = (
    "hold the Force Recovery button, press and release Power, let go after two seconds",
    "(already on: hold Force Recovery, press and release Reset, let go after two seconds)",
)
JUMPER = (
    "power off; bridge the pins FC REC and GND of the button header (9 and 10, under the module) with a jumper",
    "power on; once the board is flashed, take the jumper off",
)


@dataclass(frozen=True)
class Module:
    """A Jetson module: what it is called, how it gets into recovery mode, and what flashes each of its storages."""

    target: str
    title: str
    jetpack: str
    linux: str
    usb: tuple[str, ...]
    recovery: tuple[str, ...]
    binaries: str
    flash: dict[str, str]
    sdk_manager: str

    def text(self) -> str:
        """For people."""
        package = f"{self.linux}.0" if self.linux.count(".") == 1 else self.linux
        prepare = [
            f"tar xf Jetson_Linux_R{package}_aarch64.tbz2",
            f"sudo tar xpf Tegra_Linux_Sample-Root-Filesystem_R{package}_aarch64.tbz2 -C Linux_for_Tegra/rootfs/",
            "cd Linux_for_Tegra/",
            "sudo ./tools/l4t_flash_prerequisites.sh",
            self.binaries,
        ]
        parts = [
            f"{self.title}: JetPack {self.jetpack}, Jetson Linux {self.linux}",
            "1. On an x86-64 PC with Ubuntu 22.04, with both packages of that Jetson Linux from NVIDIA's site:",
            *(f"     {line}" for line in prepare),
            "2. Recovery mode, with a USB cable from the board's recovery port to the PC:",
            *(f"     {line}" for line in self.recovery),
            f"   `lsusb` then lists 0955:{' or 0955:'.join(self.usb)}",
            "3. Flash; everything on that storage is lost:",
            *(f"     {storage}:\n       {command}" for storage, command in self.flash.items()),
            f"Or with a window: NVIDIA SDK Manager, target hardware {self.sdk_manager!r}",
        ]
        return "\n".join(parts)


MODULES = (
    Module(
        "jetson-orin-nano",
        "Jetson Orin Nano",
        "6.2.1",
        ORIN,
        ("7523 (8 GB)", "7623 (4 GB)"),
        JUMPER,
        "sudo ./apply_binaries.sh",
        {
            "NVMe and boot firmware": SMALL,
            "microSD": "write NVIDIA's microSD image with balenaEtcher (the boot firmware must be JetPack 6's)",
        },
        "Jetson Orin Nano",
    ),
    Module(
        "jetson-orin-nx",
        "Jetson Orin NX on the Orin Nano's carrier board",
        "6.2.1",
        ORIN,
        ("7323 (16 GB)", "7423 (8 GB)"),
        JUMPER,
        "sudo ./apply_binaries.sh",
        {"NVMe and boot firmware": SMALL},
        "Jetson Orin NX",
    ),
    Module(
        "jetson-agx-orin",
        "Jetson AGX Orin",
        "6.2.1",
        ORIN,
        ("7023 (developer kit, 64 GB)", "7223 (32 GB)"),
        BUTTONS,
        "sudo ./apply_binaries.sh",
        {
            "eMMC and boot firmware": "sudo ./flash.sh jetson-agx-orin-devkit internal",
            "NVMe": f"{INITRD} {NVME} {SHOWN} jetson-agx-orin-devkit external",
        },
        "Jetson AGX Orin",
    ),
    Module(
        "jetson-thor",
        "Jetson AGX Thor",
        "7.1",
        THOR,
        ("7026",),
        BUTTONS,
        "sudo ./apply_binaries.sh --openrm",
        {
            "NVMe and boot firmware": "sudo ./l4t_initrd_flash.sh jetson-agx-thor-devkit internal",
            "NVMe, without a PC": "write NVIDIA's JetPack ISO to a USB stick and boot from it",
        },
        "Jetson AGX Thor",
    ),
)
THEN = (
    "Then, with the board on the network, its user made and python3 there:\n"
    "     edgemask flash {release} --to ssh://USER@HOST\n"
    "Edgemask runs none of these commands: they are NVIDIA's, for their developer kits; other carriers have their own."
)


def modules_for(manifest: ReleaseManifest) -> list[Module]:
    """The modules that a release is for: one, or all of the family; UserError for a release that runs on none."""
    is_theirs = not manifest.boards or any(board.startswith(MAKER) for board in manifest.boards)
    if manifest.arch not in ARCHS or not is_theirs:
        hint = "build one that is: edgemask build RECIPE --target jetson"
        raise UserError(f"the release is for {manifest.target}, and runs on no Jetson", hint)
    return [module for module in MODULES if module.target == manifest.target] or list(MODULES)


def help_text(modules: Sequence[Module], release: str) -> str:
    """What to do, for people."""
    return "\n\n".join([*(module.text() for module in modules), THEN.format(release=release)])


def help_values(modules: Sequence[Module], release: str) -> dict[str, Any]:
    """The same for scripts."""
    return {"release": release, "modules": [asdict(module) for module in modules]}
