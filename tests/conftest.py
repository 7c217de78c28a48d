"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import edgemask

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"
# Why: the tests start these packages in thousands of processes, each of which would compile them for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Why: a shell starts what is in the background so, and then no process of the tests would hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def bake_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bake a test model behind masks, once a session; whoever changes the file takes a copy."""
    made: dict[tuple[str, ...], Path] = {}

    def bake(name: str, *masks: str) -> Path:
        key = (name, *masks)
        if key not in made:
            out = tmp_path_factory.mktemp("baked") / name
            edgemask.bake(MODELS / name, out, masks=masks)
            made[key] = out
        return made[key]

    return bake
