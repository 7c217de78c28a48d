"""Lazy tables: a kind's name to a class that is imported only when it is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edgemask_runtime.errors import unknown


def chosen(table: Mapping[str, str], kind: str, what: str) -> Any:
    """Import and return the class of that kind, "module:Class" in the table; UserError for a kind that is not there."""
    if kind not in table:
        raise unknown(what, kind, table)
    module, _, attribute = table[kind].partition(":")
    return getattr(importlib.import_module(module), attribute)
