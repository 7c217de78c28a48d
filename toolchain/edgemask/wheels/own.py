"""edgemask-runtime's own wheel: the same bytes from a checkout and from an installed package, on any machine.

Why not setuptools: it needs an index or a second environment to build in, and writes its own version into the wheel.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

import edgemask_runtime
from edgemask.errors import UserError
from edgemask.wheels.store import keep_bytes

NAME, PACKAGE = "edgemask-runtime", "edgemask_runtime"
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgemask\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Distribution:
    """What a wheel is made of: the core metadata, the programs, and the files by their path in the wheel."""

    version: str
    summary: str
    licence: str
    python: str
    requires: tuple[str, ...]
    extras: tuple[str, ...]
    programs: Mapping[str, str]
    files: Mapping[str, bytes]


def runtime_wheel() -> Path:
    """Make the wheel, in the cache; its path."""
    distribution = find_runtime()
    return keep_bytes(f"{PACKAGE}-{distribution.version}-py3-none-any.whl", wheel_of(distribution))


def find_runtime() -> Distribution:
    """edgemask-runtime as it runs here: of the checkout it is imported from, else as it is installed."""
    package = Path(edgemask_runtime.__file__).parent
    project = package.parent / "pyproject.toml"
    return from_checkout(project) if project.is_file() else from_installed(importlib.metadata.distribution(NAME))


def from_checkout(project: Path) -> Distribution:
    """What pyproject.toml states, and the files of the packages that it names."""
    stated = tomllib.loads(project.read_text(encoding="utf-8"))
    about, setup = stated["project"], stated["tool"]["setuptools"]
    extras: dict[str, list[str]] = about["optional-dependencies"]
    patterns = {package: ["*.py", *setup["package-data"].get(package, [])] for package in setup["packages"]}
    paths = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in (project.parent / package.replace(".", "/")).glob(glob)
    }
    return Distribution(
        about["version"],
        about["description"],
        about["license"],
        about["requires-python"],
        _sorted([*about["dependencies"], *(_of_extra(name, need) for name in extras for need in extras[name])]),
        tuple(sorted(extras)),
        about["scripts"],
        {path.relative_to(project.parent).as_posix(): path.read_bytes() for path in paths},
    )


def from_installed(found: importlib.metadata.Distribution) -> Distribution:
    """What is written beside an installed package, and the files that its record names."""
    about = found.metadata
    paths = [path for path in found.files or () if path.parts[0] == PACKAGE and path.suffix != ".pyc"]
    try:
        files = {path.as_posix(): Path(str(path.locate())).read_bytes() for path in paths}
    except OSError as error:
        raise UserError(f"{NAME} is not whole: {error}", "install edgemask and edgemask-runtime again") from error
    return Distribution(
        about["Version"],
        about["Summary"],
        about["License-Expression"],
        about["Requires-Python"],
        _sorted(about.get_all("Requires-Dist") or []),
        tuple(sorted(about.get_all("Provides-Extra") or [])),
        {entry.name: entry.value for entry in found.entry_points if entry.group == "console_scripts"},
        files,
    )


def wheel_of(distribution: Distribution) -> bytes:
    """The wheel: sorted, uncompressed (deflate differs by library), without dates."""
    folder = f"{PACKAGE}-{distribution.version}.dist-info"
    programs = "".join(f"{name} = {value}\n" for name, value in sorted(distribution.programs.items()))
    files = dict(sorted(distribution.files.items())) | {
        f"{folder}/METADATA": _metadata(distribution).encode(),
        f"{folder}/WHEEL": _WHEEL.encode(),
        f"{folder}/entry_points.txt": f"[console_scripts]\n{programs}".encode(),
        f"{folder}/top_level.txt": f"{PACKAGE}\n".encode(),
    }
    record = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{folder}/RECORD"] = "".join([*record, f"{folder}/RECORD,,\n"]).encode()
    return _zip(files)


def _metadata(distribution: Distribution) -> str:
    lines = ["Metadata-Version: 2.4", f"Name: {NAME}", f"Version: {distribution.version}"]
    lines += [f"Summary: {distribution.summary}", f"License-Expression: {distribution.licence}"]
    lines += [f"Requires-Python: {distribution.python}"]
    lines += [f"Requires-Dist: {need}" for need in distribution.requires]
    lines += [f"Provides-Extra: {extra}" for extra in distribution.extras]
    return "\n".join(lines) + "\n"


def _of_extra(extra: str, need: str) -> str:
    """A requirement of an extra as core metadata has it."""
    plain, _, marker = need.partition(";")
    marker = f"({marker})" if " or " in marker else marker.strip()
    return f'{plain}; {marker} and extra == "{extra}"' if marker else f'{plain}; extra == "{extra}"'


def _sorted(needs: Iterable[str]) -> tuple[str, ...]:
    """Requirements in the one spelling that `packaging` gives them."""
    return tuple(sorted({str(Requirement(need)) for need in needs}))


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, content)
    return out.getvalue()
