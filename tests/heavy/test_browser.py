"""The daemon's page in headless Chromium, on a desk and on a phone."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtime.identity import PATTERN, identity_bundle
from runtime.running import COMMAND, Daemon, watched

from edgemask_runtime.cameras.pattern import number_in
from edgemask_runtime.formats import Format

webdriver: Any = pytest.importorskip("selenium.webdriver")
support: Any = pytest.importorskip("selenium.webdriver.support.ui")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.serving,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium and chromium-driver"),
]

WAIT_S = 120
SIDE = 128
TOKEN = "0123456789abcdef"
PICTURE = "const it = document.querySelector('[data-is=picture]'); return [it.dataset.frame, it.toDataURL()]"
PLOTTED = """
const it = document.querySelector('[data-is=plot]');
return it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some((value) => value > 0)
"""


@contextmanager
def device(folder: Path, access: str = "") -> Iterator[Daemon]:
    identity_bundle(folder / "identity.edgemask", (SIDE, SIDE, 3))
    (folder / "edgemaskd.toml").write_text(PATTERN.format(access=access, fps=20))
    with watched([*COMMAND, "run", str(folder / "edgemaskd.toml")], stdout=subprocess.DEVNULL) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(WAIT_S)
    yield driver
    driver.quit()


def shown(browser: Any, but: int = -1) -> tuple[int, Any]:
    """The frame that the page says it shows, when it is another one than `but`, and the canvas at the same moment."""
    number, url = support.WebDriverWait(browser, WAIT_S).until(lambda it: _another(it, but))
    image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    return number, np.asarray(image)


def _another(browser: Any, but: int) -> Any:
    if not browser.execute_script("return document.querySelector('[data-is=picture]') !== null"):
        return None
    frame, url = browser.execute_script(PICTURE)
    return (int(frame), url) if frame and int(frame) != but else None


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector))


def test_live_pictures_answers_and_nothing_from_elsewhere(browser: Any, tmp_path: Path) -> None:
    with device(tmp_path) as daemon:
        browser.get(daemon.url)
        number = -1
        for _ in range(5):
            number, pixels = shown(browser, number)
            assert number_in(pixels, Format(SIDE, SIDE, "rgb")) == number % 2**16
        wait = support.WebDriverWait(browser, WAIT_S)
        wait.until(lambda it: it.execute_script(PLOTTED))
        wait.until(lambda it: "answered" in text_of(it, "[data-is=counts]"))
        assert "onnxruntime" in text_of(browser, "#models")
        assert "memory, daemon" in text_of(browser, "#machine")
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map((it) => it.name)")
        assert all(name.startswith((daemon.url, "data:")) for name in loaded), loaded
        assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
        daemon.process.terminate()
        wait.until(lambda it: "no connection" in text_of(it, "#connection"))
        assert "no connection" in text_of(browser, "[data-is=invalid]") or "no valid answer" in text_of(
            browser, "[data-is=invalid]"
        )


def test_it_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    with device(tmp_path) as daemon:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(daemon.url)
        shown(browser)
        support.WebDriverWait(browser, WAIT_S).until(lambda it: "answered" in text_of(it, "[data-is=counts]"))
        wide = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide[0] <= wide[1] == 360


def test_it_asks_for_the_token_and_then_shows(browser: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with device(tmp_path, 'token_file = "token"') as daemon:
        browser.get(daemon.url)
        wait = support.WebDriverWait(browser, WAIT_S)
        wait.until(lambda it: it.execute_script("return !document.getElementById('access').hidden"))
        assert text_of(browser, "#pipelines").strip() == ""
        browser.find_element("id", "token").send_keys(TOKEN)
        browser.find_element("css selector", "#access button").click()
        shown(browser)
