"""Make the locks anew: `make locks`. For who maintains Edgemask, in a checkout, with a package index at hand.

Versions are those of .constraints.txt, which were tested together, unless targets/wheels/pins.txt has another one.
What needs what is read from the wheels themselves, for the board's Python and not for the one that runs this.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable, Mapping
from email.parser import Parser
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgemask.errors import UserError, run_main
from edgemask.wheels.fetching import run_pip
from edgemask.wheels.glibc import newest, wanted_glibc
from edgemask.wheels.lock import BASE, Pin
from edgemask.wheels.store import keep, sha256_of, workspace
from edgemask_runtime.files import write_atomic

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "targets" / "wheels"
ARCHITECTURES, PYTHONS = ("aarch64", "x86_64"), ("3.10", "3.11", "3.12", "3.13")
# tflite-runtime wants numpy 1; a board that has it takes it from its own system.
LEFT_OUT = {"tflite"}


class Resolver:
    """What edgemask-runtime needs on one architecture and Python."""

    def __init__(self, arch: str, python: str) -> None:
        self.arch, self.python = arch, python
        self.markers = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "platform_python_implementation": "CPython",
            "platform_machine": arch,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }
        self.versions = _versions(ROOT / ".constraints.txt", self.markers) | _versions(
            FOLDER / "pins.txt", self.markers
        )
        self.wheels: dict[str, Path] = {}

    def lock(self) -> list[Pin]:
        """Every pin, by name."""
        groups = {group: self.closure(needs) for group, needs in _groups().items()}
        names = sorted({name for group in groups.values() for name in group})
        return [self._pin(name, groups) for name in names]

    def closure(self, needs: Iterable[str]) -> set[str]:
        """Every package that these requirements bring, themselves included."""
        found: set[tuple[str, str]] = set()
        queue = [(Requirement(need), "") for need in needs]
        while queue:
            need, of_extra = queue.pop()
            if need.marker and not need.marker.evaluate(self.markers | {"extra": of_extra}):
                continue
            name = canonicalize_name(need.name)
            self._check(need, name)
            new = {(name, extra) for extra in ("", *need.extras)} - found
            found |= new
            queue += [(each, extra) for _, extra in new for each in self._needs(name)]
        return {name for name, _ in found}

    def _check(self, need: Requirement, name: str) -> None:
        if name not in self.versions:
            raise UserError(f"{name} is not pinned ({need})", f"add it to {FOLDER / 'pins.txt'}")
        if not need.specifier.contains(self.versions[name], prereleases=True):
            raise UserError(f"{name} is pinned to {self.versions[name]}, and {need} is needed", "mend the pin")

    def _needs(self, name: str) -> list[Requirement]:
        with zipfile.ZipFile(self._wheel(name)) as archive:
            [path] = [path for path in archive.namelist() if path.endswith(".dist-info/METADATA")]
            about = Parser().parsestr(archive.read(path).decode())
        return [Requirement(need) for need in about.get_all("Requires-Dist") or []]

    def _wheel(self, name: str) -> Path:
        if name not in self.wheels:
            with workspace() as folder:
                run_pip([f"{name}=={self.versions[name]}"], folder, self.arch, self.python, 1)
                [wheel] = folder.glob("*.whl")
                self.wheels[name] = keep(wheel)
        return self.wheels[name]

    def _pin(self, name: str, groups: Mapping[str, set[str]]) -> Pin:
        named = (BASE,) if name in groups[BASE] else tuple(group for group in groups if name in groups[group])
        wheel = self._wheel(name)
        return Pin(name, self.versions[name], sha256_of(wheel), named, wanted_glibc(wheel))


def main() -> int:
    """Write every lock."""
    for arch in ARCHITECTURES:
        for python in PYTHONS:
            path = FOLDER / f"{arch}-cp{python.replace('.', '')}.txt"
            pins = Resolver(arch, python).lock()
            glibc = newest(pin.glibc for pin in pins)
            about = f"# {arch}, CPython {python}, glibc {glibc} or later. Made by `make locks`: do not edit.\n"
            write_atomic(path, (about + "".join(f"{pin}\n" for pin in pins)).encode())
            print(f"{path.relative_to(ROOT)}: {len(pins)} wheels")
    return 0


def _groups() -> dict[str, list[str]]:
    stated = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needs for name, needs in stated["optional-dependencies"].items() if name not in LEFT_OUT}
    return {BASE: stated["dependencies"], **extras}


def _versions(file: Path, markers: Mapping[str, str]) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    pins = [need for need in map(Requirement, lines) if not need.marker or need.marker.evaluate(dict(markers))]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


if __name__ == "__main__":
    sys.exit(run_main(main))
