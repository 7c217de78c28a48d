"""A real kernel's camera without a lens: vivid, in an emulated machine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from runtime.tiny import MakeBundle

from .vivid import CASES
from .vm import run_on_another_kernel

pytestmark = [pytest.mark.board, pytest.mark.slow]
FOLDER = Path(__file__).parent


def test_the_kernels_camera_is_read_as_it_lies(tmp_path: Path) -> None:
    told = run_on_another_kernel(f"{sys.executable} {FOLDER / 'vivid.py'}", tmp_path)
    match = re.search(r"^found=(.*)$", told, re.MULTILINE)
    assert match, told[-3000:]
    found = json.loads(match[1])
    assert "/dev/video0: vivid (vivid, platform:vivid-000)" in found["survey"]
    assert re.search(r"taken: NV12 640x360 \d+ fps; as it is, without a copy", found["survey"])
    for (colour, width, _, settings), facts in zip(CASES, found["taken"], strict=True):
        assert facts["shape"][1] in (width, 2 * width), colour
        assert facts["spread"] > 20
        assert facts["ordered"]
        assert facts["view"] == ("format" not in settings)
        assert facts["numbers"] == sorted(set(facts["numbers"]))
        assert facts["lost"] == facts["numbers"][-1] - facts["numbers"][0] - 9
    assert found["held"]["lost"] > 0
    assert found["held"]["again"] > 20
    assert found["held"]["kept"] > 20
    assert found["closed"] <= 1
    assert found["busy"] == "/dev/video0: Device or resource busy"


def test_the_daemon_runs_on_the_kernels_camera(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(max_age_ms=60_000)
    run = f"{sys.executable} -m edgemask_runtime.daemon run {bundle} --source /dev/video0 --fps 5 --max-frames 12"
    told = run_on_another_kernel(f"{run} --listen none", tmp_path)
    answers = [json.loads(line) for line in re.findall(r'^\{.*"frame".*\}\r?$', told, re.MULTILINE)]
    assert [answer["frame"] for answer in answers] == sorted({answer["frame"] for answer in answers})
    assert answers, told[-4000:]
    assert all(answer["name"].startswith("video0#") for answer in answers)
