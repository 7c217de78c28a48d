"""A device in a folder, and releases for it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.release import Environment, Release, write_release
from edgemask_runtime.trust import PublicKey, Signature, Signatures
from edgemask_runtime.trust.signatures import DOMAINS

from .manager import Manager
from .releases import MODEL, UNIT, WHEEL, files_around, manifest_around
from .running import Daemon, watched

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime"
UNITS = HERE.parents[1] / "targets/units"
RECOVER, USERS = "units/edgemask-recover.service", "units/edgemask.sysusers"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ENTRY_POINTS = "[console_scripts]\nedgemaskd = tinyd:main\nedgemask-device = edgemask_runtime.install.cli:main\n"


def tiny_wheel(version: int, behaviour: str = "well", port: int = 0) -> bytes:
    """A wheel whose edgemaskd behaves as it is told."""
    told = f"BEHAVIOUR, VERSION, PORT = {behaviour!r}, '{version}', {port}\n"
    files = {"behaviour.py": told, "tinyd.py": (HERE / "tinyd.py").read_text(), "runtime.pth": str(RUNTIME)}
    return wheel_of(files | {"tiny-1.dist-info/entry_points.txt": ENTRY_POINTS})


def wheel_of(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


class Maker:
    """Signs releases of one bundle with one key."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle
        self.private = Ed25519PrivateKey.generate()
        self.key = PublicKey(self.private.public_key().public_bytes_raw())
        self.public = folder / "maker.pub"
        self.public.write_bytes(self.key.to_pem())
        # So that the many processes of these tests compile each module once.
        self.env = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def release(self, serial: int, behaviour: str = "well", *, port: int = 0, **changes: Any) -> Path:
        """A release of this serial, whose daemon says `version SERIAL` when it is ready."""
        settings = f'schema = 1\n[http]\nlisten = "127.0.0.1:{port}"\n' if port else "schema = 1\n"
        given = {WHEEL: tiny_wheel(serial, behaviour, port), "settings.toml": settings.encode()}
        return self.write(serial, given, **changes)

    def write(self, serial: int, given: dict[str, bytes], *, without: str = "", **changes: Any) -> Path:
        """A release with these files in place of the usual ones."""
        wanted = b"[Service]\nType=notify\n[Install]\nWantedBy=multi-user.target\n"
        files = files_around(self.bundle) | {UNIT: wanted, RECOVER: wanted, USERS: b"u edgemask -\n"} | given
        files = {name: content for name, content in files.items() if name != without}
        units = tuple(sorted(name for name in files if name.startswith("units/")))
        wheels = tuple(sorted(name for name in files if name.startswith("wheels/")))
        stated = {"serial": serial, "version": f"{serial}.0", "units": units}
        stated |= {"environments": {PYTHON: Environment(wheels, ())}}
        manifest = manifest_around(self.bundle, files, **stated | changes)
        path = self.folder / f"{serial}.release"
        write_release(path, manifest, files, Signatures(signatures=(self.signature(manifest.to_json().encode()),)))
        return path

    def sha256(self, release: Path) -> str:
        return hashlib.sha256(release.read_bytes()).hexdigest()

    def signature(self, signed: bytes) -> Signature:
        made = self.private.sign(DOMAINS["ed25519"] + signed)
        return Signature(self.key.id, "ed25519", base64.b64encode(made).decode())


@dataclasses.dataclass
class Board:
    """A device, its service manager, and edgemask-device in processes of its own."""

    folder: Path
    layout: Layout
    manager: Manager
    maker: Maker
    steady_s: float = 0.0

    def __post_init__(self) -> None:
        self.avahi.mkdir(parents=True)

    @property
    def avahi(self) -> Path:
        """Where releases are announced."""
        return self.layout.system / "etc/avahi/services"

    def run(self, *arguments: Any, at: int = 0, writable: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a verb; killed at the step `at`, or on a disk that is full from the step -`at` on, or that is read-only
        but for what is `writable`."""
        command = [sys.executable, str(HERE / "installer.py"), str(self.folder), str(at), *map(str, arguments)]
        env = {**self.maker.env, "TESTS_STEADY_S": str(self.steady_s), "TESTS_WRITABLE": os.pathsep.join(writable)}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)

    def install(self, release: Path, *more: Any, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.run("install", release, "--enrol", self.maker.public, *more, **how)

    @contextmanager
    def in_the_gate(self, release: Path, *more: Any) -> Iterator[Daemon]:
        """An installer that waits for this release's daemon; killed in the end if it still does."""
        command = [sys.executable, str(HERE / "installer.py"), str(self.folder), "0", "install", str(release)]
        with watched([*command, *map(str, more)]) as installer:
            assert installer.process.stdout
            while "waiting until" not in installer.process.stdout.readline():
                assert installer.process.poll() is None
            yield installer

    def installed(self, serial: int, *more: Any, **changes: Any) -> None:
        """Install a good release of this serial."""
        done = self.install(self.maker.release(serial, **changes), *more)
        assert done.returncode == 0, done.stdout + done.stderr
        self.manager.becomes("active", f"version {serial}")

    def refuses(self, *arguments: Any) -> str:
        """A verb that is refused: nothing changes. What it says."""
        before, tree = self.manager.state(), self.tree()
        done = self.run(*arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert (self.manager.state(), self.tree()) == (before, tree)
        return done.stderr

    def tree(self) -> dict[str, str]:
        """Every file and link of the installation, and what it holds."""
        places = [path for top in (self.layout.root, self.layout.system) for path in sorted(top.rglob("*"))]
        return {str(path): _content(path) for path in places if path != self.layout.lock}

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
        return told

    def keep(self, name: str) -> None:
        """Remember what lies on the device."""
        for top in (self.layout.root, self.layout.system):
            shutil.copytree(top, self.folder / name / top.name, symlinks=True)

    def restore(self, name: str) -> None:
        """Put it back, with the power off."""
        self.manager.stop()
        for top in (self.layout.root, self.layout.system):
            shutil.rmtree(top, ignore_errors=True)
            if (self.folder / name / top.name).exists():
                shutil.copytree(self.folder / name / top.name, top, symlinks=True)
        self.avahi.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start what is current, if anything is."""
        if self.layout.current.is_symlink():
            self.manager.restart()
            self.manager.becomes("active")

    def boot(self) -> None:
        """Lose the power, come back, and start what is current."""
        self.manager.stop()
        durable.remove_tree(self.layout.credentials.parent)
        recovered = self.run("recover", "--boot", writable=self.of_the_unit())
        assert recovered.returncode == 0, recovered.stdout + recovered.stderr
        assert "is not told" not in recovered.stdout
        self.start()

    def of_the_unit(self) -> list[str]:
        """What the unit that recovers may write."""
        unit = (UNITS / "edgemask-recover.service").read_text()
        words = [word.lstrip("-") for line in re.findall("^ReadWritePaths=(.+)$", unit, re.M) for word in line.split()]
        places = {str(Layout().root): self.layout.root}
        return [str(places.get(word, self.layout.system / word.lstrip("/"))) for word in words]

    def check(self) -> int:
        """Hold what must be true at rest, and return the serial that runs; 0 for none."""
        return at_rest(self.layout)


def at_rest(layout: Layout) -> int:
    """Hold what must be true while nothing is under way, and return the serial of what is current; 0 for nothing."""
    running, state = layout.running(), json.loads(layout.state.read_text())
    assert state["pending"] is None
    assert state["current"] == running
    assert not list(layout.root.glob(".*"))
    for slot in layout.slots.glob("*"):
        assert slot.name in (running, state["previous"])
        assert Slot(slot).completed()
        assert Slot(slot).altered() is None
    if running is None:
        assert not layout.current.is_symlink()
        assert not list(layout.units.rglob("*.service"))
        return 0
    for link in [layout.settings, layout.users, *layout.units.rglob("*.service")]:
        assert link.exists(), link
    return Slot(layout.slot(running)).manifest().serial


def _content(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"


__all__ = ["MODEL", "UNIT", "WHEEL", "Board", "Maker", "Release", "tiny_wheel", "wheel_of"]
