"""Debian for other machines: packages unpacked, nothing of them run, kept by a digest of what was asked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SUITE = "trixie"
TOOLS = ("mmdebstrap", "depmod", "mke2fs", "cpio", "setpriv", "qemu-img", "ssh")
HOW = "tests/board/need.sh installs or names what is missing"
SBIN = ("/usr/sbin", "/sbin")


def tool(name: str) -> str:
    """Where a program is; the test is skipped, and says why, where it is not."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))
    if found is None:
        pytest.skip(f"{name} is missing: {HOW}")
    return found


def cached(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled for this very recipe, made once by whoever comes first."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemask" / "board"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = root / f"{name}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            make(fresh)
            fresh.rename(folder)
    return folder


def unpack(packages: tuple[str, ...], arch: str, tree: Path, suite: str = SUITE) -> None:
    """The packages and all that they depend on, from the mirror that apt is set up with, as files in `tree`."""
    if os.geteuid() != 0:
        pytest.skip(
            "a root file system with its owners and rights is made by root: run this as root, or in a container"
        )
    asked = [tool("mmdebstrap"), "--quiet", "--variant=extract", f"--architectures={arch}"]
    source = f"deb {_mirror()} {suite} main"
    subprocess.run([*asked, f"--include={','.join(packages)}", suite, str(tree), source], check=True, timeout=1800)


def _mirror() -> str:
    """What apt takes Debian from here, for it may be the only one in reach."""
    told = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True)
    found = [line.rstrip("/") for line in told.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    return found[0] if found else "http://deb.debian.org/debian"


def kernel(arch: str) -> Path:
    """A folder with Debian's kernel for `arch` (arm64, amd64): boot/vmlinuz-*, lib/modules/*."""

    def make(folder: Path) -> None:
        unpack((f"linux-image-{arch}",), arch, folder / "all")
        (folder / "lib").mkdir()
        shutil.move(folder / "all/boot", folder / "boot")
        shutil.move(folder / "all/usr/lib/modules", folder / "lib/modules")
        shutil.rmtree(folder / "all")
        subprocess.run([tool("depmod"), "-b", str(folder), version(folder)], check=True)

    return cached(f"kernel-{arch}", SUITE, make)


def version(kernel: Path) -> str:
    """The kernel's version, as its folder of modules is called."""
    return next((kernel / "lib/modules").iterdir()).name


def modules(kernel: Path, name: str) -> list[Path]:
    """The files of a module and of those it needs, in the order to load them."""
    asked = [tool("modprobe"), "-d", str(kernel), "-S", version(kernel), "--show-depends", name]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return [Path(line.split()[1]) for line in told.splitlines() if line.startswith("insmod")]
