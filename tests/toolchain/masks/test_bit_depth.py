"""Truncation against the bits themselves."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.masks.bit_depth import BitDepth

from ..harness import stepped

EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.mark.parametrize("bits", range(1, 8))
def test_truncation_clears_the_lower_bits(bits: int) -> None:
    kept = EVERY_VALUE & np.uint8(256 - 2 ** (8 - bits))
    for interpreter in ("numpy", "onnx-13", "tflite"):
        np.testing.assert_array_equal(stepped(BitDepth(bits, "truncate"), EVERY_VALUE, None, interpreter), kept)
