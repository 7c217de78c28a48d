"""The long lane: the power goes at random moments of installations, and the board always comes back serving."""

from __future__ import annotations

import json
import random
import time

import pytest

from .device import Device

pytestmark = [pytest.mark.board, pytest.mark.slow]
KILLS = 12
SEED = 20261123


def test_every_kill_leaves_a_board_that_serves(device: Device) -> None:
    """An installation runs through once, for its length; then each round is cut at a random share of it."""
    serial = 100
    begun = time.monotonic()
    device.flash(device.update(serial))
    whole_s = time.monotonic() - begun
    draw = random.Random(SEED)
    device.say(f"an installation takes {whole_s:.0f} s; seed {SEED}")
    for kill in range(1, KILLS + 1):
        after_s = draw.uniform(0, whole_s)
        step = device.cut_after(device.update(serial + 1), after_s)
        took_s = device.boot()
        told = device.serving()
        device.say(
            f"kill {kill}: after {after_s:.0f} s, at {step!r}; up in {took_s:.0f} s;", json.dumps(told["failure"])
        )
        device.say(f"    it ran serial {serial}, and runs {told['installed']['serial']}")
        assert told["installed"]["serial"] in (serial, serial + 1)
        assert device.answers(1)
        serial = told["installed"]["serial"]
