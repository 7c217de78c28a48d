"""Wheels into an environment, without pip: unzipped to where each part belongs, with the programs that they name."""

from __future__ import annotations

import configparser
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgemask_runtime.errors import UserError, one_line

LONGEST_SHEBANG = 127
RUNNABLE, PLAIN = 0o755, 0o644
CHUNK_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 1 << 32
BLOCK_BYTES = 4096
NAME = r"[^\x00-\x1f\x7f\\]+"
ENTRY = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<function>[\w.]+)\s*(\[.*\])?")
SCRIPT = """import sys
from {module} import {first}
sys.exit({function}())
"""


@dataclass(frozen=True)
class Places:
    """Where the parts of a wheel go: modules, programs, data; and the interpreter that programs run on."""

    modules: Path
    scripts: Path
    data: Path
    python: Path

    def of(self, kind: str) -> Path | None:
        """The folder for `NAME.data/KIND`, None for kinds that nothing here needs."""
        return {"purelib": self.modules, "platlib": self.modules, "scripts": self.scripts, "data": self.data}.get(kind)


def unpack_wheel(wheel: Path, places: Places) -> None:
    """Put all of a wheel where it belongs; UserError when it is not a sound one."""
    with _opened(wheel) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and (to := _place(entry, places, wheel)):
                _write(archive, entry, to, places)
        for name, entry_point in _programs(archive, wheel):
            _check_free(places.scripts / name, wheel)
            _write_program(places.scripts / name, entry_point, places.python)


def unpacked_bytes(wheel: zipfile.ZipFile) -> int:
    """How much room a wheel takes on the disk, its compiled modules included."""
    sizes = [(entry.file_size, entry.filename.endswith(".py")) for entry in wheel.infolist()]
    return sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES * (2 if is_python else 1) for size, is_python in sizes)


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(wheel)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _broken(wheel, one_line(error)) from error
    if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
        raise _broken(wheel, f"more than {MAX_UNPACKED_BYTES} bytes when unpacked")
    return archive


def _place(entry: zipfile.ZipInfo, places: Places, wheel: Path) -> Path | None:
    """Where an entry goes, None where it goes nowhere."""
    parts = PurePosixPath(entry.filename).parts
    kind = stat.S_IFMT(entry.external_attr >> 16)
    unsafe = not parts or entry.filename.startswith("/") or ".." in parts or not re.fullmatch(NAME, entry.filename)
    if unsafe or kind not in (0, stat.S_IFREG):
        raise _broken(wheel, f"entry {entry.filename!r} is no plain file inside it")
    if not parts[0].endswith(".data"):
        return places.modules.joinpath(*parts)
    folder = places.of(parts[1]) if len(parts) > 2 else None
    return folder.joinpath(*parts[2:]) if folder else None


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path, places: Places) -> None:
    _check_free(to, Path(archive.filename or ""))
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(entry) as source, to.open("wb") as file:
            if to.parent == places.scripts:
                file.write(_with_interpreter(source.readline(), places.python))
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise _broken(Path(archive.filename or ""), one_line(error)) from error
    is_program = to.parent == places.scripts or entry.external_attr >> 16 & 0o111
    to.chmod(RUNNABLE if is_program else PLAIN)


def _check_free(to: Path, wheel: Path) -> None:
    """An environment's `python` is a link to the system's own, which no wheel may write through."""
    if to.is_symlink():
        raise _broken(wheel, f"it has its own {to.name}, which the environment has already")


def _with_interpreter(line: bytes, python: Path) -> bytes:
    return _shebang(python).encode() if line.startswith(b"#!python") else line


def _shebang(python: Path) -> str:
    plain = f"#!{python} -I\n"
    # Why not always: the kernel cuts a long first line, and a shell costs a start.
    return plain if len(plain) <= LONGEST_SHEBANG else f"#!/bin/sh\n'''exec' \"{python}\" -I \"$0\" \"$@\"\n' '''\n"


def _programs(archive: zipfile.ZipFile, wheel: Path) -> Iterator[tuple[str, re.Match[str]]]:
    """The names of a wheel's programs, and the module and function of each."""
    texts = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/entry_points\.txt", name)]
    for name in texts[:1]:
        parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_string(archive.read(name).decode())
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _broken(wheel, f"{name}: {one_line(error)}") from error
        given = parser.items("console_scripts") if parser.has_section("console_scripts") else []
        for program, line in given:
            match = ENTRY.fullmatch(line.strip())
            if match and re.fullmatch(r"[\w.-]+", program):
                yield program, match


def _write_program(path: Path, entry: re.Match[str], python: Path) -> None:
    function = entry["function"]
    body = SCRIPT.format(module=entry["module"], first=function.partition(".")[0], function=function)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_shebang(python) + body)
    path.chmod(RUNNABLE)


def _broken(wheel: Path, reason: str) -> UserError:
    return UserError(f"{wheel.name}: not a sound wheel: {reason}", "build the release again")
