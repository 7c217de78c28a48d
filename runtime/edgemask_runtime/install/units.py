"""What an installation puts outside its root: links through `current`, to units, users, settings and the program."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edgemask_runtime.install import durable
from edgemask_runtime.install.announcing import announce, silence
from edgemask_runtime.install.layout import Layout

SYSUSERS, WANTS = ".sysusers", ".wants"
WANTED = re.compile(r"^WantedBy=(.+)$", re.MULTILINE)


def link_all(layout: Layout, tell: Callable[[str], None], *, enable: bool = True) -> None:
    """Make every link that the running slot needs and remove those that it does not; files of others stay.

    What starts with the device does so unless its owner disabled it; `enable` lets it start all the same.
    """
    wanted = _wanted(layout)
    _remove_parts(layout)
    for path in _ours(layout):
        if path not in wanted:
            durable.remove(path)
    for path, target in wanted.items():
        if path.parent.suffix == WANTS and not enable:
            continue
        if _is_free(path, layout) and not _points_to(path, target):
            durable.make_folder(path.parent)
            durable.link(path, target)
    if layout.current.exists():
        announce(layout, tell)


def unlink_all(layout: Layout, tell: Callable[[str], None]) -> None:
    """Remove every link of ours."""
    _remove_parts(layout)
    for path in _ours(layout):
        durable.remove(path)
    silence(layout, tell)


def _remove_parts(layout: Layout) -> None:
    """A half-made link among the units is one of ours, whatever its name; elsewhere only names tell."""
    for place in (layout.settings, layout.program, layout.users):
        durable.remove_parts(place)


def owners_settings(layout: Layout) -> bool:
    """Whether the device's owner has put settings of their own in place of the release's."""
    return (layout.settings.exists() or layout.settings.is_symlink()) and not _is_ours(layout.settings, layout)


def _wanted(layout: Layout) -> dict[Path, Path]:
    """Each link's place and target."""
    folder = layout.current / "units"
    links = {layout.settings: layout.current / "settings.toml"}
    links[layout.program] = layout.current / "venv/bin/edgemask-device"
    for unit in sorted(folder.iterdir()) if folder.is_dir() else []:
        if unit.suffix == SYSUSERS:
            links[layout.users] = unit
            continue
        links[layout.units / unit.name] = unit
        for words in WANTED.findall(unit.read_text(errors="replace")):
            links |= {layout.units / f"{by}{WANTS}" / unit.name: unit for by in words.split()}
    return links


def _ours(layout: Layout) -> list[Path]:
    places = [layout.settings, layout.program, layout.users]
    places += [*layout.units.glob("*"), *layout.units.glob(f"*{WANTS}/*")]
    return [path for path in places if _is_ours(path, layout)]


def _is_ours(path: Path, layout: Layout) -> bool:
    return path.is_symlink() and path.readlink().is_relative_to(layout.root)


def _is_free(path: Path, layout: Layout) -> bool:
    return _is_ours(path, layout) or not (path.exists() or path.is_symlink())


def _points_to(path: Path, target: Path) -> bool:
    return path.is_symlink() and path.readlink() == target
