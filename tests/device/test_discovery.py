"""Devices on a network: real announcements, on the loopback interface."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from runtime.boards import Maker
from runtime.tiny import MakeBundle
from zeroconf import DNSOutgoing, DNSPointer, DNSRecord, DNSService, DNSText, ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo

from edgemask.device import discovery
from edgemask.device.discovery import OURS, Found, devices
from edgemask.device.showing import devices_text
from edgemask.errors import UserError
from edgemask_runtime.install.announcing import announce, silence
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.release import Release

LOOPBACK = ("127.0.0.1",)
GHOSTS = "_workstation._tcp.local."
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


@contextmanager
def shouted(*records: DNSRecord) -> Iterator[None]:
    """Answers that nobody asked for, again and again, as whoever wishes may send them."""
    zeroconf, ended = Zeroconf(interfaces=list(LOOPBACK)), threading.Event()

    def shout() -> None:
        while not ended.wait(0.1):
            zeroconf.send(answer_of(records))

    thread = threading.Thread(target=shout)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        zeroconf.close()


def answer_of(records: Sequence[DNSRecord]) -> DNSOutgoing:
    made = DNSOutgoing(0x8400)
    for record in records:
        made.add_answer_at_time(record, 0)
    return made


def pointer(name: str, kind: str = "_ssh._tcp.local.") -> DNSPointer:
    return DNSPointer(kind, 12, 1, 120, name)


def placed(name: str, host: str, text: bytes = b"") -> tuple[DNSRecord, ...]:
    return DNSService(name, 33, 1, 120, 0, 0, 22, host), DNSText(name, 16, 1, 120, text)


def found_at_last(host: str) -> list[Found]:
    """What is found once this host is among it: datagrams may be lost, and machines slow."""
    for _ in range(20):
        found = devices(1.0, LOOPBACK)
        if host in [one.host for one in found]:
            return found
    raise AssertionError(f"{host} was not found")


def test_names_of_another_kind_are_dropped() -> None:
    """Such a name made zeroconf raise, and with it the verb."""
    evil = [pointer("_ssh._tcp.local."), pointer("evil._http._tcp.local.")]
    with shouted(*evil), announced(service("_ssh._tcp.local.", "edgemask-kind")):
        hosts = [one.host for one in found_at_last("edgemask-kind.local")]
    assert not [host for host in hosts if "evil" in host]


def test_all_names_are_asked_at_once_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """No question is given up before each is out: a name that nobody has costs 3 s."""
    monkeypatch.setattr(discovery, "MOST", 8)
    out, all_are_out, steps = [], asyncio.Event(), []
    real = AsyncServiceInfo.async_request

    async def request(self: AsyncServiceInfo, zeroconf: Zeroconf, timeout: float) -> bool:
        out.append(self.name)
        if len([name for name in out if name.startswith("ghost")]) == 8:
            all_are_out.set()
        await asyncio.wait_for(all_are_out.wait(), 60)
        return await real(self, zeroconf, timeout)

    monkeypatch.setattr(AsyncServiceInfo, "async_request", request)
    with shouted(*(pointer(f"ghost{number}.{GHOSTS}", GHOSTS) for number in range(20))):
        found = devices(3.0, LOOPBACK, lambda step, *_: steps.append(step))
    assert len([name for name in out if name.startswith("ghost")]) == 8
    assert not [one for one in found if one.host.startswith("ghost")]
    assert steps[0] == "listen"
    assert re.search(r"of \d+ more nobody is asked", steps[-1])


def test_hosts_that_ssh_must_not_be_given_and_texts_that_a_terminal_obeys() -> None:
    good, evil = f"edgemask-loud.{OURS}", f"edgemask-evil.{OURS}"
    told = b"release=\x1b[2Jx\nmore", b"version=" + b"9" * 200
    text = b"".join(bytes([len(part)]) + part for part in told)
    records = (
        pointer(evil, OURS),
        *placed(evil, "-oProxyCommand=x; \x1b[2J.local."),
        pointer(good, OURS),
        *placed(good, "edgemask-loud.local.", text),
    )
    with shouted(*records):
        found = found_at_last("edgemask-loud.local")
    assert not [one.host for one in found if "Proxy" in one.host]
    (release,) = (one.release for one in found if one.host == "edgemask-loud.local")
    assert release == {"release": "\\x1b[2Jx\\nmore", "version": "9" * 64}
    assert devices_text(found).replace("\n", "").isprintable()


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
