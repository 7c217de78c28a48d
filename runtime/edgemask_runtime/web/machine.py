"""What the kernel says of the machine: memory, temperatures, power."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
BYTES_PER_KB = 1024
PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)


def memory_bytes(process: int | str = "self", root: Path = ROOT) -> int | None:
    """A process's proportional set size, or its resident one where only that may be read; None when it is gone."""
    for name, pattern in (("smaps_rollup", PSS), ("status", RESIDENT)):
        found = pattern.search(_text(root / "proc" / str(process) / name))
        if found:
            return int(found[1]) * BYTES_PER_KB
    return None


def temperatures(root: Path = ROOT) -> dict[str, float]:
    """Degrees Celsius by the thermal zone's name."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        milli = _number(zone / "temp")
        if milli is not None:
            found[_text(zone / "type") or zone.name] = milli / 1000
    return found


def powers(root: Path = ROOT) -> dict[str, float]:
    """Watts by the rail's name, of hwmon's power sensors and of Jetson's INA3221, which states volts and amperes."""
    return {name: watts for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")) for name, watts in _rails(chip)}


def _rails(chip: Path) -> Iterator[tuple[str, float]]:
    of = _text(chip / "name") or chip.name
    for sensor in sorted(chip.glob("power*_input")):
        micro = _number(sensor)
        if micro is not None:
            yield _label(of, sensor, "power"), micro / 1e6
    for sensor in sorted(chip.glob("curr*_input")):
        milli_ampere = _number(sensor)
        milli_volt = _number(chip / sensor.name.replace("curr", "in"))
        if milli_ampere is not None and milli_volt is not None:
            yield _label(of, sensor, "in"), milli_ampere * milli_volt / 1e6


def _label(chip: str, sensor: Path, kind: str) -> str:
    number = re.sub(r"\D", "", sensor.name)
    return f"{chip} {_text(sensor.parent / f'{kind}{number}_label') or number}"


def _number(path: Path) -> int | None:
    with suppress(ValueError):
        return int(_text(path))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
