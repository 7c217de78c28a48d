"""MQTT 5 on a real broker."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import trustme

from edgemask_runtime.answers import Quantity, Reading
from edgemask_runtime.detections import Detection
from edgemask_runtime.errors import UserError
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import Manifest, OutputRecord, StepRecord
from edgemask_runtime.sinks.home_assistant import configurations

from .answering import answer, eventually, opened
from .brokers import Broker, broker, listening, needs_mosquitto
from .tiny import manifest_of

pytestmark = needs_mosquitto
STATE, EVENT, STATUS, AVAILABILITY = (f"edgemask/door/{name}" for name in ("state", "event", "status", "availability"))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path) as running:
        yield running


def patient(**changes: Any) -> Manifest:
    """Answers hold for a minute, which no busy machine outlasts."""
    return dataclasses.replace(manifest_of(b"", "onnxruntime", False), max_age_ms=60_000, **changes)


def connected(running: Broker, manifest: Manifest | None = None, **settings: Any) -> Any:
    sink: Any = opened("mqtt", manifest or patient(), host="127.0.0.1", port=running.port, **settings)
    eventually(lambda: sink._link.fault is None)
    return sink


def frames(payloads: list[str]) -> list[int]:
    return [json.loads(payload)["frame"] for payload in payloads]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_newest_answer_is_retained_and_expires(plain: Broker, qos: int) -> None:
    sink = connected(plain, qos=qos)
    with listening(plain.port) as early:
        for frame in range(3):
            sink.write(answer(frame), None)
            eventually(lambda frame=frame: frames(early.on(STATE)) == list(range(frame + 1)))  # type: ignore[misc]
        assert early.on(AVAILABILITY)[-1] == "online"
    with listening(plain.port) as late:
        state = eventually(lambda: late.last(STATE))
        assert (state.retain, json.loads(state.payload)["frame"]) == (True, 2)
        assert 0 < state.properties.MessageExpiryInterval <= 60
        assert eventually(lambda: late.on(AVAILABILITY)) == ["online"]
        assert json.loads(eventually(lambda: late.on(STATUS))[0])["valid"] is True
        assert late.on(EVENT) == []
    sink.close()


def test_no_valid_answer_is_offline_with_its_reason(plain: Broker) -> None:
    sink = connected(plain)
    with listening(plain.port) as told:
        sink.write(answer(1), None)
        eventually(lambda: told.on(STATE))
        sink.invalidate("stalled")
        sink.invalidate("stalled")
        eventually(lambda: told.on(AVAILABILITY)[-1] == "offline")
        eventually(lambda: json.loads(told.on(STATUS)[-1])["reason"] == "stalled")
        sink.write(answer(2), None)
        eventually(lambda: told.on(AVAILABILITY)[-1] == "online")
        sink.close()
        eventually(lambda: told.on(AVAILABILITY)[-1] == "offline")
        assert json.loads(told.on(STATUS)[-1])["reason"] == "stopping"
        assert [json.loads(status)["reason"] for status in told.on(STATUS)].count("stalled") == 1


def test_suspicious_frames_are_events_that_nobody_keeps(plain: Broker) -> None:
    sink = connected(plain, min_interval_ms=3_600_000)
    with listening(plain.port) as told:
        sink.write(answer(1), None)
        sink.write(answer(2), None)
        sink.write(answer(3, Reading((), True, {})), None)
        eventually(lambda: told.on(EVENT))
        assert frames(told.on(EVENT)) == [3]
        assert not told.last(EVENT).retain  # type: ignore[union-attr]
        assert frames(told.on(STATE)) == [1, 3]
    with listening(plain.port) as late:
        eventually(lambda: late.on(STATE))
        assert late.on(EVENT) == []
    sink.close()


def test_after_a_broker_s_death_nothing_old_comes(plain: Broker) -> None:
    sink = connected(plain, reconnect_s=1)
    sink.write(answer(1), None)
    plain.kill()
    for frame in (2, 3):
        with pytest.raises(UserError, match=rf"mqtt 127.0.0.1:{plain.port}"):
            eventually(lambda frame=frame: sink.write(answer(frame), None))  # type: ignore[misc]
    plain.start()
    with listening(plain.port) as told:
        eventually(lambda: told.on(STATE))
        assert told.on(AVAILABILITY)[-1] == "online"
        sink.write(answer(4), None)
        eventually(lambda: frames(told.on(STATE))[-1] == 4)
        assert frames(told.on(STATE)) == [3, 4]
    sink.close()


def test_what_grew_too_old_without_a_broker_is_never_sent(plain: Broker) -> None:
    sink = connected(plain, reconnect_s=1)
    sink.write(answer(1), None)
    plain.kill()
    eventually(lambda: sink._link.fault)
    with pytest.raises(UserError, match="mqtt"):
        sink.write(answer(2, age_ms=60_001), None)
    plain.start()
    with listening(plain.port) as told:
        assert json.loads(eventually(lambda: told.on(STATUS))[0])["reason"] == "expired"
        eventually(lambda: told.on(AVAILABILITY) == ["offline"])
        assert told.on(STATE) == []
    sink.close()


def test_a_broker_that_hangs_keeps_nobody_waiting_and_gets_the_newest(plain: Broker) -> None:
    sink = connected(plain, keepalive_s=3600, max_in_flight=2)
    with listening(plain.port) as told:
        plain.send(signal.SIGSTOP)
        for frame in range(200):
            sink.write(answer(frame), None)
        assert sink._link.under_way <= 5
        plain.send(signal.SIGCONT)
        eventually(lambda: told.on(STATE) and frames(told.on(STATE))[-1] == 199)
        assert len(told.on(STATE)) <= 5
    sink.close()


def test_closing_does_not_wait_for_a_broker_that_hangs(plain: Broker) -> None:
    sink = connected(plain, keepalive_s=3600)
    plain.send(signal.SIGSTOP)
    sink.write(answer(1), None)
    sink.close()
    plain.send(signal.SIGCONT)


DYING = """
import os, sys
from tests.runtime.test_mqtt import answer, connected, Broker
sink = connected(Broker(None, [], int(sys.argv[1])))
sink.write(answer(1), None)
sys.stdin.read()
os._exit(1)
"""


def test_a_daemon_that_dies_is_offline_by_its_last_will(plain: Broker) -> None:
    command = [sys.executable, "-c", DYING, str(plain.port)]
    with listening(plain.port) as told, subprocess.Popen(command, stdin=subprocess.PIPE) as dying:
        eventually(lambda: told.on(STATE))
        assert told.on(AVAILABILITY)[-1] == "online"
        dying.kill()
        eventually(lambda: told.on(AVAILABILITY)[-1] == "offline")


def test_a_wrong_password_is_said_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passwords, mine = tmp_path / "passwords", tmp_path / "mine"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "camera", "tulip-77"], check=True)
    mine.write_text("rose-41\n")
    mine.chmod(0o600)
    caplog.set_level(logging.DEBUG)
    with broker(tmp_path, "allow_anonymous false", f"password_file {passwords}") as running:
        settings = {"host": "127.0.0.1", "port": running.port, "username": "camera", "password_file": mine}
        sink: Any = opened("mqtt", patient(), **settings)
        eventually(lambda: "refuses" in (sink._link.fault or ""))
        with pytest.raises(UserError, match=r"refuses the connection: (Not authorized|Bad user name)"):
            sink.write(answer(1), None)
        sink.close()
        mine.write_text("tulip-77\n")
        connected(running, username="camera", password_file=mine).close()
    assert "refuses the connection" in caplog.text
    assert not {"rose-41", "tulip-77"} & set(caplog.text.split())


def test_a_password_for_all_to_read_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("rose")
    mine.chmod(0o640)
    with pytest.raises(UserError, match="others than its owner") as refusal:
        opened("mqtt", host="localhost", username="camera", password_file=mine)
    assert refusal.value.hint == f"chmod 600 {mine}"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = {"server": made.issue_cert("127.0.0.1"), "client": made.issue_cert(common_name="door-camera")}
    for name, certificate in issued.items():
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    return made


# Paho lets go of a socket whose handshake failed without closing it; Python closes it and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_with_a_client_s_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    options = [f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    known = {"certificate": tmp_path / "client.pem", "private_key": tmp_path / "client.key"}
    with broker(tmp_path, *options, "require_certificate true", "use_identity_as_username true") as running:
        sink = connected(running, ca=tmp_path / "ca.pem", **known)
        sink.write(answer(1), None)
        eventually(lambda: sink._link.under_way == 0)
        assert sink._link._client.socket().version() in ("TLSv1.2", "TLSv1.3")
        sink.close()
        stranger: Any = opened("mqtt", patient(), host="127.0.0.1", port=running.port, tls=True, **known)
        eventually(lambda: "certificate verify failed" in (stranger._link.fault or ""))
        stranger.close()
        plain: Any = opened("mqtt", patient(), host="127.0.0.1", port=running.port, ca=tmp_path / "ca.pem")
        eventually(lambda: "hangs up before it answers" in (plain._link.fault or ""))
        plain.close()


def test_tls_files_that_are_none_are_said(tmp_path: Path, authority: trustme.CA) -> None:
    with pytest.raises(UserError, match=r"TLS with .*nowhere.pem"):
        opened("mqtt", host="localhost", ca=tmp_path / "nowhere.pem")
    with pytest.raises(UserError, match="tls = false"):
        opened("mqtt", host="localhost", ca=tmp_path / "ca.pem", tls=False)


FACE = Detection(0, "face", 0.5, (1.0, 2.0, 3.0, 4.0), None)
READINGS = {
    "class": (Reading((Guess(1, "bob", 0.75), Guess(0, "ann", 0.2)), None, {}), "bob"),
    "class without a name": (Reading((Guess(7, None, None),), None, {}), "7"),
    "object": (Reading((), None, {}, (FACE,)), "face"),
    "no object": (Reading((), None, {}, ()), "nothing"),
}


@pytest.mark.parametrize("name", READINGS)
def test_home_assistant_s_templates_read_every_answer(name: str) -> None:
    reading, expected = READINGS[name]
    value = answer(1, reading).to_json()
    (template,) = (json.loads(text)["value_template"] for topic, text in discovered().items() if "/class/" in topic)
    assert jinja2.Template(template).render(value_json=json.loads(value)) == expected


def discovered(**changes: Any) -> dict[str, str]:
    return configurations("homeassistant", "edgemask/door", "door", patient(**changes), 60)


def test_home_assistant_is_told_what_the_bundle_gives() -> None:
    suspicion = OutputRecord("suspicion", "float32", (None, 1), "suspicion")
    speed = OutputRecord("speed", "float32", (None, 1), "value")
    count = OutputRecord("count", "float32", (None, 1), "count")
    unit = StepRecord("scale", "output", {"unit": "km/h"}, False, "")
    found = discovered(outputs=(suspicion, speed, count), thresholds={"suspicion": 1.0}, chain=(unit,))
    entities = {topic.split("/")[3]: json.loads(payload) for topic, payload in found.items()}
    assert set(entities) == {"class", "score", "objects", "value", "suspicious", "problem"}
    assert entities["value"]["unit_of_measurement"] == "km/h"
    assert {entity["device"]["identifiers"][0] for entity in entities.values()} == {"edgemask_door"}
    assert len({entity["unique_id"] for entity in entities.values()}) == 6
    told = Reading((), True, {}, (FACE, FACE), (Quantity(12.5, "km/h"),))
    shown = {
        name: jinja2.Template(entity["value_template"]).render(value_json=json.loads(answer(1, told).to_json()))
        for name, entity in entities.items()
        if name != "problem"
    }
    assert shown == {"class": "face", "score": "0.5", "objects": "2", "value": "12.5", "suspicious": "ON"}


def test_home_assistant_finds_the_pipeline_on_the_broker(plain: Broker) -> None:
    sink = connected(plain, discovery="homeassistant")
    sink.write(answer(1), None)
    with listening(plain.port, "homeassistant/#") as live:
        eventually(lambda: len(live.heard) >= 3)
    # Why another one: who listens while something is published hears it without the mark of what is retained.
    with listening(plain.port, "homeassistant/#") as told:
        eventually(lambda: len(told.heard) >= 3)
        topics = {message.topic: json.loads(message.payload) for message in told.heard}
        assert all(message.retain for message in told.heard)
    problem = topics["homeassistant/binary_sensor/edgemask_door/problem/config"]
    assert (problem["state_topic"], problem["payload_on"]) == (AVAILABILITY, "offline")
    assert topics["homeassistant/sensor/edgemask_door/class/config"]["state_topic"] == STATE
    sink.close()
