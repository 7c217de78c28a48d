"""Bake gradient-masking preprocessing into vision models, measure what it buys, and pack the result for devices.

import edgemask

baked = edgemask.bake("model.onnx", "masked.onnx", masks=["jpeg:quality=75"])
baked.proof.masked
edgemask.verify("masked.onnx", source="model.onnx", images="photos/").passed
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemask.assessment import quantise
    from edgemask.auditing import audit
    from edgemask.baking import Baked, bake
    from edgemask.bundle import Built, build
    from edgemask.calibration import Calibration, calibrate
    from edgemask.conversion import convert
    from edgemask.errors import UserError
    from edgemask.health import doctor
    from edgemask.inspection import explain, inspect
    from edgemask.measurement import Measured, measure
    from edgemask.parity import Parity
    from edgemask.prediction import predict
    from edgemask.proof import Proof
    from edgemask.recipe import Recipe
    from edgemask.releasing import Released, ReleaseOptions, release
    from edgemask.suggest import init
    from edgemask.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Baked",
    "Built",
    "Calibration",
    "Measured",
    "Parity",
    "Proof",
    "Recipe",
    "ReleaseOptions",
    "Released",
    "UserError",
    "audit",
    "bake",
    "build",
    "calibrate",
    "convert",
    "doctor",
    "explain",
    "init",
    "inspect",
    "measure",
    "predict",
    "quantise",
    "release",
    "verify",
]

_HOMES = {
    "Baked": "baking",
    "Built": "bundle",
    "Calibration": "calibration",
    "Measured": "measurement",
    "Parity": "parity",
    "Proof": "proof",
    "Recipe": "recipe",
    "ReleaseOptions": "releasing",
    "Released": "releasing",
    "UserError": "errors",
    "audit": "auditing",
    "bake": "baking",
    "build": "bundle",
    "calibrate": "calibration",
    "convert": "conversion",
    "doctor": "health",
    "explain": "inspection",
    "init": "suggest",
    "inspect": "inspection",
    "measure": "measurement",
    "predict": "prediction",
    "quantise": "assessment",
    "release": "releasing",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: `edgemask --help` need not wait for onnx."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgemask' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgemask.{_HOMES[name]}"), name)
