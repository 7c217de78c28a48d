"""Programs that the host sends to a device and runs there: the standard library alone, any Python 3."""

from __future__ import annotations

from importlib import resources


def source(name: str) -> str:
    """The text of one of them."""
    return resources.files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")


def sent(name: str, *words: str, python: str = "python3") -> list[str]:
    """What runs one of them on a device, with the Python there of this name."""
    # Why -I: commands start in the user's home, some as root, and what lies there is no module of theirs.
    return [python, "-I", "-c", source(name), *words]
