"""Programs that the host sends to a device and runs there: the standard library alone, any Python 3."""

from __future__ import annotations

from importlib import resources


def source(name: str) -> str:
    """The text of one of them."""
    return resources.files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
