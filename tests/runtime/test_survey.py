from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemask_runtime.cameras import CAMERAS
from edgemask_runtime.cameras.survey import survey

from .running import run_daemon
from .test_cameras import graph_frame
from .test_v4l2 import Recorded
from .tiny import MakeBundle

CAMERA = Path("/dev/video3")


def test_a_camera_is_listed_with_what_a_bundle_would_take() -> None:
    device = Recorded("MJPG", size=(1280, 720))
    found = survey(graph_frame(640, 360, "rgb").format, devices=[CAMERA], open_device=lambda _: device)  # type: ignore[arg-type,return-value]
    assert str(found).splitlines()[-3:] == [
        "/dev/video3: A camera (recorded, usb-1)",
        "  MJPG 1280x720 30 fps (15, 30)",
        "  taken: MJPG 1280x720 30 fps; MJPG made rgb, 1280x720 resized to 640x360",
    ]
    assert device.closed == 1
    told = json.loads(found.to_json())
    assert told["cameras"][0]["taken"] == {"fourcc": "MJPG", "width": 1280, "height": 720, "rates": [15.0, 30.0]}
    assert told["frame"]["colour"] == "rgb"


def test_what_cannot_be_opened_or_used_says_why(tmp_path: Path) -> None:
    found = survey(devices=[Path("/dev/null"), tmp_path / "none"])
    assert [camera.error for camera in found.cameras] == ["Inappropriate ioctl for device", "No such file or directory"]
    device = Recorded("H265")
    found = survey(graph_frame(64, 64, "rgb").format, devices=[CAMERA], open_device=lambda _: device)  # type: ignore[arg-type,return-value]
    assert "none of the camera's formats (H265) can be read" in str(found)


def test_every_kind_says_whether_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("av", "simplejpeg") else 1)
    kinds = {kind.name: kind for kind in survey(devices=[]).kinds}
    assert list(kinds) == list(CAMERAS)
    assert kinds["folder"].installed
    assert (kinds["video"].installed, kinds["video"].says) == (False, "pip install 'edgemask-runtime[video]'")
    assert kinds["v4l2"].installed
    assert kinds["v4l2"].says == "pip install 'edgemask-runtime[v4l2]', without Motion JPEG"


def test_the_command_lists_this_machine(make_bundle: MakeBundle) -> None:
    told = run_daemon("cameras", make_bundle(), "--json", timeout_s=120)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["schema"] == 1
    assert [kind["name"] for kind in found["kinds"]] == list(CAMERAS)
    assert found["frame"]["width"] > 0
    assert "folder     yes" in run_daemon("cameras", timeout_s=120).stdout
