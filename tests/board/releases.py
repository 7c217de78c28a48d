"""Releases for the board: built as users build them, and bad ones made of a good one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from edgemask.signing import load, sign, signature_of
from edgemask_runtime.archive import file_records
from edgemask_runtime.release import Environment, Release, write_release
from edgemask_runtime.trust import Signatures

from .debian import tool

CABIN = Path(__file__).parent / "cabin"
TARGET = "arm64"
PYTHON = "3.13"
MODULE = "nothing"
PATIENT = '#!/bin/sh\nexec {ssh} -o ConnectTimeout=600 -o ServerAliveInterval=120 "$@"\n'


@dataclasses.dataclass(frozen=True)
class Maker:
    """Whoever makes releases: keys in a folder of their own, so that nobody's keys are touched."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its command line runs with: its own keys, and an ssh that waits for an emulated board."""
        patient = self.folder / "bin/ssh"
        if not patient.exists():
            patient.parent.mkdir(parents=True)
            patient.write_text(PATIENT.format(ssh=tool("ssh")))
            patient.chmod(0o755)
        path = f"{patient.parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "XDG_CONFIG_HOME": str(self.folder / "config"), "PATH": path}

    def edgemask(self, *arguments: str, code: int = 0, timeout_s: float = 3600) -> str:
        """Run the command line as a user would; what it printed on both outputs."""
        done = subprocess.run(
            [sys.executable, "-m", "edgemask", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == code, f"edgemask {' '.join(arguments)}: {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def build(self, serial: int, *options: str, key: str | None = "release") -> Path:
        """Build a release of the cabin's recipe with this serial."""
        out = self.folder / f"serial-{serial}{'' if key else '-development'}"
        signed = ["--key", key] if key else []
        settings = ["--settings", str(CABIN / "edgemaskd.toml"), "--serial", str(serial)]
        recipe = str(CABIN / "edgemask.toml")
        self.edgemask("build", recipe, "--target", TARGET, "-o", str(out), *settings, *signed, *options)
        return out / f"cabin-{TARGET}.release"

    def keygen(self, name: str) -> Path:
        """Make a key; the path of its public half."""
        self.edgemask("keygen", name)
        return self.public(name)

    def public(self, name: str) -> Path:
        """The public half of a key."""
        return self.folder / "config/edgemask/keys" / f"{name}.pub"

    def like(
        self, path: Path, name: str, *, key: str = "release", files: dict[str, bytes] | None = None, **changes: Any
    ) -> Path:
        """A release like the one at `path`, with other files or another manifest, signed by `key`."""
        release = Release.open(path)
        content = {file: release.read(file) for file in release.manifest.files} | (files or {})
        named = _named(release, changes) | (files or {}).keys()
        kept = {file: data for file, data in content.items() if file in named}
        manifest = dataclasses.replace(release.manifest, **changes, files=file_records(kept))
        signing = load(self.public(key).with_suffix(".pem"))
        out = self.folder / name
        write_release(out, manifest, kept, Signatures.from_bytes(sign(manifest.to_json().encode(), signing)))
        return out

    def update(self, path: Path, serial: int, name: str = "", **changes: Any) -> Path:
        """The release at `path` as another serial, with the wheels of the board's Python alone: the rest is ballast."""
        environments = {PYTHON: Release.open(path).manifest.environments[PYTHON]}
        told = {"serial": serial, "version": f"1.{serial}", "environments": environments, **changes}
        return self.like(path, name or f"cabin-{serial}.release", **told)

    def light(self, path: Path, name: str, *, key: str = "release", python: str = PYTHON, **changes: Any) -> Path:
        """A release like the one at `path` without its wheels, for refusals: sent in no time, it could not run."""
        wheel = f"wheels/{MODULE}-1.0-py3-none-any.whl"
        files = {wheel: _wheel(self.folder / "nothing.whl")}
        environments = {python: Environment((wheel,), ())}
        return self.like(path, name, key=key, files=files, **{"environments": environments, **changes})

    def forged(self, path: Path, name: str) -> Path:
        """The release with a signature that names the enrolled key and was made by another one."""
        release = Release.open(path)
        content = {file: release.read(file) for file in release.manifest.files}
        signed = signature_of(release.signed, load(self.public("stranger").with_suffix(".pem")))
        named = dataclasses.replace(signed, key=release.signatures.signatures[0].key)
        out = self.folder / name
        write_release(out, release.manifest, content, Signatures(1, (named,)))
        return out


def flipped(path: Path, out: Path, at: float) -> Path:
    """The same archive with one bit changed at this share of its length."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    out.write_bytes(data)
    return out


def _named(release: Release, changes: dict[str, Any]) -> set[str]:
    """The files of the old release that the new manifest still names."""
    environments = changes.get("environments", release.manifest.environments)
    wheels = {wheel for environment in environments.values() for wheel in environment.wheels}
    return {file for file in release.manifest.files if not file.startswith("wheels/") or file in wheels}


def _wheel(path: Path) -> bytes:
    """A wheel with one empty module, as small as they come."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{MODULE}.py", "")
        wheel.writestr(f"{MODULE}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{MODULE}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 1.0\n")
    return path.read_bytes()
