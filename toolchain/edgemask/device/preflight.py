"""Whether a release will go onto a device, asked before anything is sent: every reason why not at once."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgemask.device.facts import Facts
from edgemask.errors import UserError
from edgemask_runtime.install.wheels import unpacked_bytes
from edgemask_runtime.moments import seconds
from edgemask_runtime.release import Release, ReleaseManifest

MB = 1 << 20
SPARE_BYTES = 32 * MB
SKEW_S = 300
TARGETS = "`edgemask targets` lists the boards; build for this one: make target=NAME"


@dataclass(frozen=True)
class Check:
    """One thing that a release asks of a device: what is there, what is needed, and what to do where it is not."""

    what: str
    here: str
    needed: str
    passed: bool
    hint: str = ""
    is_fault: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Sizes:
    """Bytes: of the archive, of what is still to be sent of it, and of the release once it is installed."""

    archive: int
    missing: int
    installed: int


def check(
    facts: Facts, manifest: ReleaseManifest, sizes: Sizes, now_s: float | None = None, login: str = "ssh HOST"
) -> list[Check]:
    """Everything that a release asks, in the order of what people can change least; `login` gets people there."""
    return [
        *_machine(facts, manifest),
        *_software(facts, manifest),
        *_room(facts, sizes),
        _clock(facts, manifest, time.time() if now_s is None else now_s, login),
        _others(facts),
    ]


def require(where: str, checks: list[Check]) -> None:
    """UserError that names everything that is in the way."""
    faults = [check for check in checks if not check.passed and check.is_fault]
    if faults:
        lines = [f"{where}: {check.what}: {check.here}; needed: {check.needed}" for check in faults]
        raise UserError("\n".join(lines), "; ".join(dict.fromkeys(check.hint for check in faults)))


def installed_bytes(release: Release, python: str) -> int:
    """The room that a release takes on the disk under this Python: its files, and its wheels unpacked and compiled."""
    manifest = release.manifest
    environment = manifest.environments.get(python)
    wheels = environment.wheels if environment else ()
    plain = sum(record.bytes for name, record in manifest.files.items() if not name.startswith("wheels/"))
    largest = max((manifest.files[name].bytes for name in wheels), default=0)
    return plain + largest + sum(_unpacked(release.read(name)) for name in wheels)


def _unpacked(wheel: bytes) -> int:
    try:
        return unpacked_bytes(zipfile.ZipFile(io.BytesIO(wheel)))
    except zipfile.BadZipFile:
        return len(wheel)


def _machine(facts: Facts, manifest: ReleaseManifest) -> Iterator[Check]:
    arch = manifest.arch
    yield Check("processor", facts.arch, arch, arch in ("any", facts.arch), _arch_hint(facts, manifest))
    if manifest.boards:
        here = facts.model or ", ".join(facts.boards) or "no device tree"
        fits = bool(set(manifest.boards) & set(facts.boards))
        yield Check("board", here, f"one of {', '.join(manifest.boards)}", fits, TARGETS)
    needed = f"{manifest.memory_mb} MB"
    enough = facts.memory_mb >= manifest.memory_mb
    yield Check("memory", f"{facts.memory_mb} MB", needed, enough, "a smaller model, or a board with more memory")


def _arch_hint(facts: Facts, manifest: ReleaseManifest) -> str:
    if facts.bits == 32 and facts.machine == manifest.arch:
        return "the processor can do it, the system is one of 32 bits: write the 64-bit image onto its card"
    return TARGETS


def _software(facts: Facts, manifest: ReleaseManifest) -> Iterator[Check]:
    versions = manifest.environments
    found = facts.python_for(versions)
    shown = ", ".join({facts.python: None, **dict.fromkeys(facts.others.values())})
    hint = f"a system with Python {' or '.join(versions)}, or a release for this one: `edgemask targets`"
    yield Check("Python", shown, " or ".join(versions), found is not None, hint)
    missing = f"sudo apt-get install {found[0] if found else 'python3'}-venv there"
    yield Check("Python's venv", _found(facts.venv), "found", facts.venv, missing)
    glibc = facts.glibc or "another C library"
    enough = facts.glibc is not None and _parts(facts.glibc) >= _parts(manifest.glibc)
    yield Check("glibc", glibc, manifest.glibc, enough, "a newer version of the device's operating system has it")
    for name in versions[found[1]].system if found else ():
        there = facts.packages.get(name, False)
        yield Check(f"package {name}", _found(there), "found", there, f"the board's maker ships {name}: install it")


def _room(facts: Facts, sizes: Sizes) -> Iterator[Check]:
    """Both places may be on one disk, which then needs room for both."""
    shared = facts.root.device == facts.cache.device
    needed = sizes.installed + SPARE_BYTES + (sizes.missing if shared else 0)
    hint = "make room on the device: `df -h` shows the disks, `sudo journalctl --vacuum-size=50M` helps"
    free = facts.root.free + facts.clearable
    yield Check("disk", _mb(free), _mb(needed), free >= needed, hint)
    if not shared:
        enough = facts.cache.free >= sizes.missing
        yield Check("disk of the home folder", _mb(facts.cache.free), _mb(sizes.missing), enough, hint)


def _clock(facts: Facts, manifest: ReleaseManifest, now_s: float, login: str) -> Check:
    """A wrong clock matters where a release expires; elsewhere it is only said, for boards without one of their own."""
    skew_s = facts.time - now_s
    here = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(facts.time))
    seen = f"{here}, {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    expired = manifest.expires is not None and facts.time >= seconds(manifest.expires)
    # Why no quotes: the shell here fills in the time, which the device does not know.
    hint = f"type here: {login} sudo timedatectl set-ntp true, or {login} sudo date -u -s @$(date +%s)"
    return Check("clock", seen, f"within {SKEW_S} s", abs(skew_s) <= SKEW_S, hint, is_fault=expired)


def _others(facts: Facts) -> Check:
    hint = "wait until it is done: edgemask status HOST"
    return Check("other installers", facts.busy or "none", "none", facts.busy is None, hint)


def services(facts: Facts) -> Check:
    """What starts the daemon, and starts it again."""
    hint = "the daemon is a service of systemd: take a system that has it"
    return Check("systemd", _found(facts.systemd), "found", facts.systemd, hint)


def _found(there: bool) -> str:
    return "found" if there else "missing"


def _mb(size: int) -> str:
    return f"{size / MB:.0f} MB"


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
