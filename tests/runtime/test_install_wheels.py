"""Wheels without pip: what pip would put where, and what no wheel may do."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from edgemask_runtime.errors import UserError
from edgemask_runtime.install.slots import Slot
from edgemask_runtime.install.unpacking import check_space
from edgemask_runtime.install.wheels import LONGEST_SHEBANG, Places, unpack_wheel, unpacked_bytes
from edgemask_runtime.release import Release

from .boards import WHEEL, Maker

INFO = "parts-1.0.dist-info"
MODULE = """def main():
    print('parts run')
    return 3
class Group:
    main = staticmethod(main)
"""
PROGRAMS = """[console_scripts]
parts-run = parts:main
Parts2 = parts:Group.main [extra]
[other]
x = y:z
"""
FILES = {
    "parts/__init__.py": MODULE,
    "parts/native.so": "code",
    "parts-1.0.data/purelib/pure.py": "PURE = 1\n",
    "parts-1.0.data/platlib/plat.py": "PLAT = 1\n",
    "parts-1.0.data/data/share/parts/table.txt": "1 2 3\n",
    "parts-1.0.data/scripts/shout": "#!python\nprint('shouted')\n",
    "parts-1.0.data/scripts/plain": "#!/bin/sh\necho plain\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": PROGRAMS,
}


RUNNABLE = ("parts/native.so", "parts-1.0.data/scripts/shout", "parts-1.0.data/scripts/plain")


def wheel_at(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, f"{INFO}/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name in RUNNABLE else 0o100644) << 16
            archive.writestr(entry, text)
    return path


def places_in(folder: Path) -> Places:
    """An environment's folders, with this Python in it."""
    python = folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Places(folder / "lib" / version / "site-packages", folder / "bin", folder, python)


def listing(folder: Path) -> dict[str, bool]:
    """Every file, and whether it can be run."""
    made = [path for path in folder.rglob("*") if path.is_file() and path.name not in PIPS_OWN]
    return {str(path.relative_to(folder)): bool(path.stat().st_mode & stat.S_IXUSR) for path in made}


PIPS_OWN = ("python", "INSTALLER", "REQUESTED", "RECORD", "direct_url.json")


def test_a_wheel_goes_where_pip_puts_it(tmp_path: Path) -> None:
    wheel = wheel_at(tmp_path / "parts-1.0-py3-none-any.whl", FILES)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    unpack_wheel(wheel, places_in(ours))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--prefix", str(theirs), str(wheel)], check=True, capture_output=True)
    assert listing(ours) == listing(theirs)
    modules = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    for name in ("pure.py", "plat.py", "parts/__init__.py", f"{INFO}/METADATA"):
        assert (ours / modules / name).read_bytes() == (theirs / modules / name).read_bytes()


@pytest.mark.parametrize("depth", [1, 4], ids=["short", "longer than the kernel reads"])
def test_its_programs_run(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["a-folder-with-a-rather-long-name" * (depth > 1) or "short"] * depth)
    places = places_in(folder)
    assert (len(str(places.python)) > LONGEST_SHEBANG) == (depth > 1)
    unpack_wheel(wheel_at(tmp_path / "parts.whl", FILES), places)
    env = {"PYTHONPATH": "nowhere", "PATH": "/usr/bin:/bin"}
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys._base_executable).parent}\n")
    for program, said, code in (("parts-run", "parts run", 3), ("Parts2", "parts run", 3), ("shout", "shouted", 0)):
        done = subprocess.run([str(places.scripts / program)], capture_output=True, text=True, env=env, check=False)
        assert (done.stdout.strip(), done.returncode) == (said, code), done.stderr


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "parts/../../outside.py", "a\\b.py", "bell\x07.py"])
def test_no_wheel_writes_outside(tmp_path: Path, name: str) -> None:
    wheel = wheel_at(tmp_path / "evil.whl", {name: "x = 1\n"})
    with pytest.raises(UserError, match="no plain file inside it"):
        unpack_wheel(wheel, places_in(tmp_path / "deep/venv"))
    assert not list(tmp_path.rglob("outside.py"))


def test_no_wheel_brings_links(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.whl", "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="no plain file inside it"):
        unpack_wheel(tmp_path / "link.whl", places_in(tmp_path / "venv"))


def test_an_entry_without_a_name_is_told(tmp_path: Path) -> None:
    wheel = wheel_at(tmp_path / "dot.whl", {".": "text"})
    with pytest.raises(UserError, match="no plain file inside it"):
        unpack_wheel(wheel, places_in(tmp_path / "venv"))


SCRIPT, PROGRAM = "parts-1.0.data/scripts/python", f"{INFO}/entry_points.txt"


@pytest.mark.parametrize(("name", "text"), [(SCRIPT, "#!python\n"), (PROGRAM, "[console_scripts]\npython = a:b\n")])
def test_no_wheel_writes_through_the_link_to_the_systems_python(tmp_path: Path, name: str, text: str) -> None:
    places = places_in(tmp_path / "venv")
    system = tmp_path / "python3"
    system.write_text("the system's")
    places.python.unlink()
    places.python.symlink_to(system)
    with pytest.raises(UserError, match="it has its own python"):
        unpack_wheel(wheel_at(tmp_path / "evil.whl", {name: text}), places)
    assert system.read_text() == "the system's"


def test_what_is_no_wheel_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"no\.whl: not a sound wheel"):
        unpack_wheel(tmp_path / "no.whl", places_in(tmp_path / "venv"))
    whole = wheel_at(tmp_path / "whole.whl", {"table.bin": "0123456789" * 999}).read_bytes()
    (tmp_path / "cut.whl").write_bytes(whole.replace(whole[60:64], b"\xff\xff\xff\xff", 1))
    with pytest.raises(UserError, match=r"cut\.whl: not a sound wheel"):
        unpack_wheel(tmp_path / "cut.whl", places_in(tmp_path / "other"))


def test_room_is_reckoned_before_anything_is_written(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.bin", bytes(300 << 20))
    assert unpacked_bytes(zipfile.ZipFile(content)) == 300 << 20
    release = Release.open(maker.write(1, {WHEEL: content.getvalue()}))
    slot, usage = Slot(tmp_path / "slots/a"), namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 310 << 20))
    with pytest.raises(UserError, match="317 MB are needed, 310 MB are free"):
        check_space(release, slot)
    slot.folder.mkdir(parents=True)
    (slot.folder / "old").write_bytes(bytes(20 << 20))
    check_space(release, slot)
