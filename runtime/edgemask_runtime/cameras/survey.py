"""What this machine can look through: kinds of sources, the kernel's cameras, and what a bundle would take of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemask_runtime.cameras import CAMERAS
from edgemask_runtime.cameras.helper import asked
from edgemask_runtime.cameras.negotiation import Mode, best, remark
from edgemask_runtime.cameras.v4l2 import modes_of
from edgemask_runtime.cameras.video4linux import Device, capture_devices
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Format

SCHEMA = 1
NEEDS = {"video": ("av", "video"), "stream": ("av", "video"), "v4l2": ("simplejpeg", "v4l2")}
"""The package that a kind cannot do without, or, v4l2, cannot decode Motion JPEG without, and the extra with it."""
HELPED = {"gstreamer": "gstreamer-version", "picamera2": "picamera2-list"}
"""Kinds that run in a helper, and what to ask it."""


@dataclass(frozen=True)
class Kind:
    """A kind of source: whether it is installed, and what it says of itself, or what it needs."""

    name: str
    installed: bool
    says: str


@dataclass(frozen=True)
class Found:
    """A camera of the kernel's: its modes, which a bundle would take and what is done to its frames; or why not."""

    path: str
    card: str
    driver: str
    bus: str
    modes: tuple[Mode, ...]
    taken: Mode | None
    remark: str
    error: str | None


@dataclass(frozen=True)
class Survey:
    """All of it; `frame` is what the bundle takes, if one was given."""

    frame: Format | None
    kinds: tuple[Kind, ...]
    cameras: tuple[Found, ...]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2)

    def __str__(self) -> str:
        return "\n".join([*self._kinds(), *self._cameras()])

    def _kinds(self) -> Iterator[str]:
        for kind in self.kinds:
            yield f"{kind.name:10} {'yes' if kind.installed else 'no':4} {kind.says}".rstrip()

    def _cameras(self) -> Iterator[str]:
        if not self.cameras:
            yield "no /dev/video* on this machine"
        for camera in self.cameras:
            yield f"{camera.path}: {camera.error or f'{camera.card} ({camera.driver}, {camera.bus})'}"
            yield from (f"  {mode}{_paces(mode)}" for mode in camera.modes)
            if camera.taken:
                yield f"  taken: {camera.taken}; {camera.remark or 'as it is, without a copy'}"


def survey(
    frame: Format | None = None,
    fps: float | None = None,
    *,
    devices: Iterable[Path] | None = None,
    open_device: Callable[[Path], Device] = Device,
) -> Survey:
    """Look at everything; nothing is started that films."""
    paths = capture_devices() if devices is None else devices
    kinds = tuple(_kind(name) for name in CAMERAS)
    return Survey(frame, kinds, tuple(_found(path, frame, fps, open_device) for path in paths))


def _kind(name: str) -> Kind:
    if name in HELPED:
        return _helped(name)
    module, extra = NEEDS.get(name, (None, None))
    if module is None or importlib.util.find_spec(module):
        return Kind(name, True, "")
    only = ", without Motion JPEG" if name == "v4l2" else ""
    return Kind(name, name == "v4l2", f"pip install 'edgemask-runtime[{extra}]'{only}")


def _helped(name: str) -> Kind:
    try:
        said = asked(HELPED[name])
    except UserError as error:
        return Kind(name, False, error.message)
    installed = said.startswith(("GStreamer", "["))
    return Kind(name, installed, _listed(said) if said.startswith("[") else said)


def _listed(said: str) -> str:
    """What libcamera says of each of its cameras."""
    found: list[dict[str, Any]] = json.loads(said)
    return "; ".join(f"{camera.get('Num')}: {camera.get('Model')}" for camera in found) or "no camera"


def _found(path: Path, frame: Format | None, fps: float | None, open_device: Callable[[Path], Device]) -> Found:
    try:
        device = open_device(path)
    except OSError as error:
        return Found(str(path), "", "", "", (), None, "", error.strerror or str(error))
    try:
        modes = tuple(modes_of(device, device.fourccs(), frame))
        taken, problem = _taken(modes, frame, fps)
        done = remark(taken, frame) if taken and frame else ""
        return Found(str(path), device.card, device.driver, device.bus, modes, taken, done, problem)
    except OSError as error:
        return Found(str(path), device.card, device.driver, device.bus, (), None, "", error.strerror or str(error))
    finally:
        device.close()


def _taken(modes: tuple[Mode, ...], frame: Format | None, fps: float | None) -> tuple[Mode | None, str | None]:
    try:
        return (best(modes, frame, fps) if frame else None), None
    except UserError as error:
        return None, error.message


def _paces(mode: Mode) -> str:
    return f" ({', '.join(f'{rate:g}' for rate in mode.rates)})" if len(mode.rates) > 1 else ""
