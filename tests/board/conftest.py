"""The runtime's fixtures, here too."""

from __future__ import annotations

from runtime.conftest import make_bundle, weights

__all__ = ["make_bundle", "weights"]
