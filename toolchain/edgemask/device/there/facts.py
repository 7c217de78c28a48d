"""Tell what this device is: `python3 -I -c TEXT ROOT CARD PACKAGES PYTHONS PROGRAM...`, JSON on one line; Python 3.6.

ROOT is where Edgemask is or will be, CARD what a prepared card brought; PACKAGES and PYTHONS are names with commas
between, to be looked for; PROGRAM is the installer of what is installed.
"""

import fcntl
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE_S = 120
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # type: Any


def read(path: Path) -> str:
    """A file's text, nothing where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def tree(name: str) -> "list[str]":
    """Strings of the device tree's root."""
    return [word for word in read(Path("/proc/device-tree", name)).split("\0") if word]


def existing(path: Path) -> Path:
    """The path, or the nearest folder above that is there."""
    return path if path.exists() else existing(path.parent)


def disk(path: Path) -> "dict[str, int]":
    """The file system that a path will be on, and the bytes free there."""
    there = existing(path)
    return {"device": there.stat().st_dev, "free": shutil.disk_usage(str(there)).free}


def memory_mb() -> int:
    """The memory that the kernel has."""
    lines = [line.split() for line in read(Path("/proc/meminfo")).splitlines()]
    return next((int(words[1]) // 1024 for words in lines if words[0] == "MemTotal:"), 0)


def glibc() -> "str | None":
    """The version of the C library; None for another one."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1]
    except (ValueError, OSError, IndexError):
        return None


def busy(root: Path) -> "str | None":
    """Who is changing the installation at this moment."""
    try:
        with (root / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read(root / "lock") or "{}"
    except OSError:
        return None
    return None


def installed(root: Path) -> Any:
    """What runs there now, as its release states it."""
    try:
        return json.loads(read(root / "current" / "release.json"))
    except ValueError:
        return None


def runs(command: "list[str]") -> bool:
    """Whether the installed installer does: an upgrade of the system takes its Python away."""
    try:
        return subprocess.run([*command, "--version"], timeout=PATIENCE_S, check=False, **QUIET).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def is_left(*folders: Path) -> bool:
    """Whether anything of an installation is there, be it whole or half removed."""
    with suppress(OSError):
        return any(True for folder in folders if folder.is_dir() for _ in folder.iterdir())
    return True


def clearable(root: Path) -> int:
    """The bytes of the slot that does not run: an install clears it before it writes."""
    running = (root / "current").resolve()
    slots = [slot for slot in (root / "slots").glob("*") if slot.resolve() != running]
    with suppress(OSError):
        return sum(path.lstat().st_blocks * 512 for slot in slots for path in slot.rglob("*"))
    return 0


def version_of(program: str) -> str:
    """The version of another Python; nothing where it is not there or does not run."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        done = subprocess.run(
            [program, "-I", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return ""
    return done.stdout.decode().strip()


def having(program: str, names: "list[str]") -> "dict[str, bool]":
    """Which of these modules a Python has."""
    code = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if n and importlib.util.find_spec(n)))"
    done = subprocess.run([program, "-I", "-c", code, *names], stdout=subprocess.PIPE, check=False)
    found = done.stdout.decode().split()
    return {name: name in found for name in names}


def main() -> None:
    """Print the facts."""
    root, card = map(Path, sys.argv[1:3])
    packages, pythons, program = sys.argv[3].split(","), sys.argv[4].split(","), sys.argv[5:]
    names = ["python" + version for version in pythons if version]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    own = "{}.{}".format(*sys.version_info)
    others = {name: version_of(name) for name in names if shutil.which(name)}
    taken = [name for name, version in others.items() if version in pythons]
    has = having(taken[0] if taken and own not in pythons else sys.executable, ["venv", *packages])
    facts = {
        "python": own,
        "others": others,
        "venv": has["venv"],
        "bits": 8 * struct.calcsize("P"),
        "machine": platform.machine(),
        "glibc": glibc(),
        "boards": tree("compatible"),
        "model": " ".join(tree("model")),
        "system": platform.platform(),
        "memory_mb": memory_mb(),
        "root": disk(root),
        "cache": disk(Path(cache)),
        "time": time.time(),
        "systemd": Path("/run/systemd/system").is_dir(),
        "writable": os.access(str(existing(root)), os.W_OK),
        "busy": busy(root),
        "installed": installed(root),
        "runs": runs(program),
        "clearable": clearable(root),
        "left": is_left(root, card),
        "packages": {name: has[name] for name in packages if name},
    }
    print(json.dumps(facts))


main()
