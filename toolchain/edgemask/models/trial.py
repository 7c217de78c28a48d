"""A TFLite file's first load, in a process that may crash.

LiteRT verifies where a file's offsets point to and not what the numbers mean: one wild shape, index or scale of a
quantised tensor ends the process that loads it, or fills its memory.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys

TIMEOUT_S = 60
MEMORY_BYTES = 8 << 30

_loaded: set[str] = set()
"""Digests of the files that loaded."""

_REFUSED = 3
_CHILD = f"""
import sys
data = sys.stdin.buffer.read()
try:
    import resource
    limit = {MEMORY_BYTES} + 4 * len(data)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
except (ImportError, ValueError, OSError):
    pass
from edgemask_runtime.engines import open_engine
from edgemask_runtime.errors import one_line
try:
    open_engine("litert", data)
except Exception as error:
    print(one_line(error))
    sys.exit({_REFUSED})
"""


def refusal(data: bytes) -> str | None:
    """Why LiteRT does not load the model: its own words, or that it crashes or does not end; None if it loads it."""
    digest = hashlib.sha256(data).hexdigest()
    if digest in _loaded:
        return None
    reason = _try(data)
    if reason is None:
        _loaded.add(digest)
    return reason


def _try(data: bytes) -> str | None:
    command = [sys.executable, "-P", "-c", _CHILD]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"litert has not loaded it after {TIMEOUT_S} s"
    if done.returncode == _REFUSED:
        return done.stdout.decode(errors="replace").strip()
    return f"litert crashes on it (exit code {done.returncode})" if done.returncode else None
