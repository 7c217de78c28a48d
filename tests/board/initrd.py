"""The first files of a machine: busybox, the modules that its disk needs, and one script."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .debian import modules, tool

FOLDERS = ("bin", "mods", "host", "root", "proc", "sys", "dev")


def initrd(
    image: Path, kernel: Path, names: tuple[str, ...], init: str, *, busybox: Path, options: Mapping[str, str] = {}
) -> Path:
    """Write a cpio archive whose /init is `init`; `{insmods}` in it becomes the lines that load the modules `names`."""
    tree = image.parent / f"{image.name}.tree"
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    loads = dict.fromkeys(_taken(path, tree, options) for name in names for path in modules(kernel, name))
    (tree / "init").write_text(init.replace("{insmods}", "\n".join(loads)))
    (tree / "init").chmod(0o755)
    _pack(tree, image)
    shutil.rmtree(tree)
    return image


def _taken(module: Path, tree: Path, options: Mapping[str, str]) -> str:
    """Plain, for busybox unpacks no .ko.xz."""
    name = module.name.removesuffix(".xz")
    packed = module.read_bytes()
    (tree / "mods" / name).write_bytes(lzma.decompress(packed) if module.suffix == ".xz" else packed)
    stem = name.removesuffix(".ko")
    return f"$B insmod /mods/{name} {options.get(stem, '')}"


def _pack(tree: Path, image: Path) -> None:
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    packed = subprocess.run(
        [tool("cpio"), "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        cwd=tree,
        input=names.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    image.write_bytes(packed.stdout)
