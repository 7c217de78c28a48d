"""Tell what this device is: `python3 -I -c TEXT ROOT PACKAGES PYTHONS`, JSON on one line; any Python from 3.6 on.

ROOT is where Edgemask is or will be; PACKAGES and PYTHONS are names with commas between, to be looked for.
"""

import fcntl
import importlib.util
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


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


def main() -> None:
    """Print the facts."""
    root, packages, pythons = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")
    names = ["python" + version for version in pythons if version]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    facts = {
        "python": "{}.{}".format(*sys.version_info),
        "others": {name: version_of(name) for name in names if shutil.which(name)},
        "venv": importlib.util.find_spec("venv") is not None,
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
        "packages": {name: importlib.util.find_spec(name) is not None for name in packages if name},
    }
    print(json.dumps(facts))


main()
