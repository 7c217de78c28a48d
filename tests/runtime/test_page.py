"""What people look at: pictures that belong to their answers, counts that add up, and who may see them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.cameras.pattern import number_in
from edgemask_runtime.formats import Format
from edgemask_runtime.settings import DoorSettings
from edgemask_runtime.sinks import SinkContext
from edgemask_runtime.telemetry import BOUNDS_MS, Telemetry
from edgemask_runtime.web.machine import memory_bytes, powers, temperatures
from edgemask_runtime.web.screen import Screen

from .answering import answer
from .identity import PATTERN, identity_bundle
from .parts import until
from .running import COMMAND, watched
from .serving import serving_dashboard
from .tiny import SHAPE, manifest_of, picture

LENGTH = "Inference-Header-Content-Length"
SIDE = 64


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("device")
    identity_bundle(folder / "identity.edgemask", (SIDE, SIDE, 3))
    (folder / "edgemaskd.toml").write_text(PATTERN.format(access="", fps=50))
    with (
        watched([*COMMAND, "run", str(folder / "edgemaskd.toml")], stdout=subprocess.DEVNULL) as daemon,
        httpx.Client(base_url=daemon.url, timeout=60) as client,
    ):
        yield client


def seen(client: httpx.Client, after: int) -> tuple[dict[str, Any], bytes]:
    response = client.get("/pipelines/front/live", params={"after": after}).raise_for_status()
    length = int(response.headers[LENGTH])
    return json.loads(response.content[:length]), response.content[length:]


def samples(text: str) -> dict[str, float]:
    """Prometheus' text format, as its documentation defines a line."""
    lines = (re.fullmatch(r"([a-z_]+(?:\{.*\})?) (\S+)", line) for line in text.splitlines() if line[0] != "#")
    return {line[1]: float(line[2]) for line in lines if line}


def test_a_picture_is_that_of_its_answer(client: httpx.Client) -> None:
    number, shown = -1, 0
    while shown < 20:
        told, image = seen(client, number)
        assert told["number"] != number
        assert told["size"] == [SIDE, SIDE]
        number = told["number"]
        if not image:
            continue
        shown += 1
        drawn = number_in(np.asarray(Image.open(BytesIO(image))), Format(SIDE, SIDE, "rgb"))
        assert drawn == told["answer"]["frame"] % 2**16


def test_counts_are_the_same_on_both_pages(client: httpx.Client) -> None:
    before = client.get("/status").json()
    response = client.get("/metrics").raise_for_status()
    after = client.get("/status").json()
    assert response.headers["content-type"].startswith("text/plain; version=")
    found = samples(response.text)
    name, tally = next(iter(before["pipelines"].items()))
    for outcome in ("captured", "answered"):
        label = f'edgemask_frames_total{{outcome="{outcome}",pipeline="{name}"}}'
        assert tally[outcome] <= found[label] <= after["pipelines"][name][outcome]
    buckets = [
        found[f'edgemask_frame_age_seconds_bucket{{le="{bound / 1000}",pipeline="{name}"}}'] for bound in BOUNDS_MS
    ]
    assert buckets == sorted(buckets)
    assert found[f'edgemask_frame_age_seconds_count{{pipeline="{name}"}}'] >= buckets[-1] > 0
    assert found[f'edgemask_pipeline_state{{pipeline="{name}",state="running"}}'] == 1
    assert found['edgemask_memory_bytes{process="daemon"}'] > 1e6
    model = next(iter(before["models"]))
    assert found[f'edgemask_model_up{{model="{model}"}}'] == 1
    assert before["models"][model]["digest"] in response.text


def test_the_page_brings_all_it_needs(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert sorted(named) == ["page.css", "page.js"]
    for name in named:
        content = client.get(f"/{name}").raise_for_status()
        assert "://" not in content.text
        assert content.headers["content-type"].startswith(("text/css", "text/javascript"))


def test_what_is_not_there(client: httpx.Client) -> None:
    assert client.get("/pipelines/none/live").status_code == 404
    assert client.get("/pipelines/front/live", params={"after": "x"}).status_code == 400
    assert client.get("/page.py").status_code == 404
    assert client.post("/metrics").status_code == 405


def test_only_the_page_is_open_without_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    settings = DoorSettings("127.0.0.1:0", token_file=token)
    with serving_dashboard(Telemetry(), settings) as client:
        assert client.get("/").status_code == 200
        for path in ("/status", "/metrics", "/pipelines/a/live"):
            assert client.get(path).status_code == 401
        assert client.get("/status", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200


def test_pictures_are_asked_for_only_while_somebody_looks() -> None:
    screen = Screen(SinkContext("p", manifest_of(b"", "onnxruntime", False)))
    assert not screen.wants_pixels
    screen.write(answer(1), None)
    shown = screen.newest(-1, 0)
    assert shown
    assert shown.answer
    assert shown.answer.frame == 1
    assert screen.wants_pixels
    assert screen.newest(shown.number, 0) is None
    screen.invalidate("stalled")
    later = screen.newest(shown.number, 0)
    assert later
    assert (later.answer, later.invalid) == (None, "stalled")
    image = Image.open(BytesIO(screen.picture(picture(2))))
    assert image.size == (SHAPE[1], SHAPE[0])


def test_nobody_waits_for_a_pipeline_that_stops() -> None:
    screen = Screen(SinkContext("p", manifest_of(b"", "onnxruntime", False)))
    looking = Thread(target=screen.newest, args=(0, 3600))
    looking.start()
    until(lambda: screen.viewers == 1)
    screen.close()
    looking.join(60)
    assert not looking.is_alive()


def test_sensors_of_a_jetson_and_a_pi(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    put("sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    put("sys/class/thermal/thermal_zone0/temp", "48312")
    put("sys/class/thermal/thermal_zone1/type", "cv0-thermal")
    put("sys/class/thermal/thermal_zone1/temp", "not yet")
    put("sys/class/hwmon/hwmon1/name", "ina3221")
    put("sys/class/hwmon/hwmon1/in1_label", "VDD_IN")
    put("sys/class/hwmon/hwmon1/in1_input", "5072")
    put("sys/class/hwmon/hwmon1/curr1_input", "1200")
    put("sys/class/hwmon/hwmon2/name", "pmic")
    put("sys/class/hwmon/hwmon2/power1_input", "2500000")
    assert temperatures(tmp_path) == {"cpu-thermal": 48.312}
    assert powers(tmp_path) == pytest.approx({"ina3221 VDD_IN": 6.0864, "pmic 1": 2.5})


def test_memory_of_a_process(tmp_path: Path) -> None:
    assert memory_bytes("none", tmp_path) is None
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/status").write_text("Name:\tx\nVmRSS:\t    2000 kB\n")
    assert memory_bytes(7, tmp_path) == 2000 * 1024
    (tmp_path / "proc/7/smaps_rollup").write_text("Rss:  2000 kB\nPss:  1500 kB\nPss_Anon: 9 kB\n")
    assert memory_bytes(7, tmp_path) == 1500 * 1024
