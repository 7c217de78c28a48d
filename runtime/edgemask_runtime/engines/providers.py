"""ONNX Runtime's providers: the first allowed one that really has the graph; none takes its place unsaid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from edgemask_runtime.errors import UserError, one_line, unknown

TITLES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# Why no TF32, fp16 and int8: masks are exact in float32, and parity was shown of what the file says.
EXACT: dict[str, dict[str, str]] = {
    "cpu": {},
    "cuda": {"use_tf32": "0"},
    "tensorrt": {"trt_fp16_enable": "0", "trt_int8_enable": "0"},
}
BEHIND = {"tensorrt": ("cuda",)}
"""Who takes the nodes that a provider has no kernel for; after all of them comes the CPU."""

log = logging.getLogger("edgemaskd")


def open_session(
    source: bytes | str, options: Any, allowed: Sequence[str], cache: Path | None = None
) -> tuple[Any, str]:
    """The session on the first of the allowed providers that has it, and that provider's name.

    UserError: none has it, each with its reason; a provider that is not the first is warned of. `cache` is the folder
    where TensorRT keeps what it builds.
    """
    refused: list[str] = []
    for name in allowed:
        if name not in TITLES:
            raise unknown("provider", name, TITLES)
        session, reason = _attempt(source, options, name, cache)
        if session is not None:
            if refused:
                log.warning("runs on provider %s; %s", name, "; ".join(refused))
            return session, name
        refused.append(f"{name}: {reason}")
    hint = "install an onnxruntime that has one of them, or allow others: `providers` of the target or of the recipe"
    raise UserError(f"no provider that is allowed runs the model: {'; '.join(refused)}", hint)


def _attempt(source: bytes | str, options: Any, name: str, cache: Path | None) -> tuple[Any, str]:
    """A session whose first provider is this one; or None, and why not."""
    if TITLES[name] not in onnxruntime.get_available_providers():
        return None, "this onnxruntime does not have it"
    try:
        # Why no fallback: ONNX Runtime would take the CPU, with a line on standard output, here and in a later run.
        session = onnxruntime.InferenceSession(source, options, providers=_listed(name, cache), enable_fallback=0)
    except Exception as error:
        if name == "cpu":
            raise UserError(f"onnxruntime does not load the model: {one_line(error)}") from error
        return None, one_line(error)
    in_use = session.get_providers()[0]
    return (session, "") if in_use == TITLES[name] else (None, f"ONNX Runtime took {in_use} instead")


def _listed(name: str, cache: Path | None) -> list[tuple[str, dict[str, str]]]:
    kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)} if cache else {}
    options = {**EXACT, "tensorrt": {**EXACT["tensorrt"], **kept}}
    return [(TITLES[each], options[each]) for each in (name, *BEHIND.get(name, ()))]
