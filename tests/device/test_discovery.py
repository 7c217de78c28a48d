"""Devices on a network: real announcements, on the loopback interface."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from runtime.boards import Maker
from runtime.tiny import MakeBundle
from zeroconf import ServiceInfo, Zeroconf

from edgemask.device.discovery import OURS, devices
from edgemask.errors import UserError
from edgemask_runtime.install.announcing import announce, silence
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.release import Release

LOOPBACK = ("127.0.0.1",)
AVAHI = "etc/avahi/services/edgemask.service"


@contextmanager
def announced(*services: ServiceInfo) -> Iterator[None]:
    zeroconf = Zeroconf(interfaces=list(LOOPBACK))
    try:
        for service in services:
            zeroconf.register_service(service)
        yield
    finally:
        zeroconf.close()


def service(kind: str, host: str, port: int = 22, **told: str) -> ServiceInfo:
    addresses = [socket.inet_aton("127.0.0.1")]
    name, server = f"{host}.{kind}", f"{host}.local."
    return ServiceInfo(kind, name, port, addresses=addresses, properties=told, server=server)


def test_devices_are_found_ours_first() -> None:
    ours = service(OURS, "edgemask-test-z", release="driver-id", version="1.2", serial="7")
    others = service("_ssh._tcp.local.", "edgemask-test-a", 2222)
    with announced(ours, others):
        found = [one for one in devices(2.0, LOOPBACK) if one.host.startswith("edgemask-test")]
    assert [one.to_json() for one in found] == [
        {
            "host": "edgemask-test-z.local",
            "addresses": ["127.0.0.1"],
            "port": 22,
            "release": {"release": "driver-id", "version": "1.2", "serial": "7"},
            "to": "edgemask-test-z.local",
        },
        {
            "host": "edgemask-test-a.local",
            "addresses": ["127.0.0.1"],
            "port": 2222,
            "release": {},
            "to": "ssh://edgemask-test-a.local:2222",
        },
    ]


def test_the_command_line() -> None:
    command = [sys.executable, "-m", "edgemask", "devices", "--interface", "127.0.0.1", "--wait", "2"]
    with announced(service(OURS, "edgemask-test-cli", release="x", version="1", serial="1")):
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=120)
        assert "edgemask-test-cli.local" in [one["host"] for one in json.loads(done.stdout)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert "edgemask-test-cli.local  127.0.0.1" in done.stdout


def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.77 is no address of this machine") as error:
        devices(0.1, ["192.0.2.77"])
    assert "127.0.0.1" in str(error.value.hint)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(UserError, match="zeroconf") as error:
        devices(0.1)
    assert error.value.hint == "pip install 'edgemask[devices]'"


@pytest.fixture
def layout(tmp_path: Path, make_bundle: MakeBundle) -> Layout:
    """A device that runs a release, with Avahi."""
    made = Layout(tmp_path / "root", tmp_path / "system")
    made.slot("a").mkdir(parents=True)
    (made.slot("a") / "release.json").write_bytes(Release.open(Maker(tmp_path, make_bundle()).release(7)).signed)
    made.current.symlink_to(made.slot("a"))
    (made.system / AVAHI).parent.mkdir(parents=True)
    return made


def test_a_device_announces_its_release(layout: Layout) -> None:
    announce(layout, pytest.fail)
    group = ElementTree.parse(layout.system / AVAHI).getroot()
    assert group.findtext("service/type") == OURS.removesuffix(".local.")
    records = dict((record.text or "").split("=") for record in group.iter("txt-record"))
    assert records == {"release": "tiny", "version": "7.0", "serial": "7", "target": "host"}
    silence(layout, pytest.fail)
    assert not (layout.system / AVAHI).exists()


def test_what_the_owner_announces_stays(layout: Layout) -> None:
    (layout.system / AVAHI).write_text("<mine/>")
    announce(layout, pytest.fail)
    silence(layout, pytest.fail)
    assert (layout.system / AVAHI).read_text() == "<mine/>"


def test_a_device_without_avahi(layout: Layout) -> None:
    (layout.system / AVAHI).parent.rmdir()
    announce(layout, pytest.fail)
    silence(layout, pytest.fail)
    assert not (layout.system / AVAHI).parent.exists()
