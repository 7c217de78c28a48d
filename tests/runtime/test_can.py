"""CAN and CAN FD on python-can's buses, decoded with the shipped DBC and, independently, by hand."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import logging
import os
import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import can
import cantools
import e2e
import pytest
from can.interfaces.virtual import VirtualBus
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask_runtime.answers import Reading
from edgemask_runtime.detections import Detection
from edgemask_runtime.errors import UserError
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import CanRecord, FrameInput, Manifest, OutputRecord
from edgemask_runtime.sinks import ENDED, SinkContext, Unreachable, open_sink, sink_settings
from edgemask_runtime.sinks import STOPPING as STOPPING_REASON
from edgemask_runtime.sinks.can_messages import EXPIRED, STALLED, STARTING, STOPPING, VALID, Encoder, State
from edgemask_runtime.sinks.e2e import protect_5, protect_11

from .answering import PATIENCE_S, answer, eventually, opened
from .running import run_daemon
from .tiny import MakeBundle, manifest_of

PERIOD_MS = 10
CLASSES = CanRecord("classification", 0x123, False, 0x0123, PERIOD_MS)
OBJECTS = CanRecord("objects", 0x1ABCDE, True, 0xABCD, PERIOD_MS)
OBJECTS_FD = CanRecord("objects-fd", 0x456, False, 0x1234, PERIOD_MS)
OUTPUTS = tuple(
    OutputRecord(name, "float32", (None, *shape), name)  # type: ignore[arg-type]
    for name, shape in (
        ("boxes", (9, 4)),
        ("scores", (9,)),
        ("classes", (9,)),
        ("count", (1,)),
        ("probabilities", (4,)),
    )
)
FRAME = FrameInput(640, 480, "gray", name="frame", dtype="uint8", batch=None)
FOUND = (
    Detection(3, "van", 0.9, (64.0, 48.0, 320.0, 240.0), None, (Guess(17, "express", 0.5),)),
    Detection(0, "car", 0.5, (-5.0, 0.0, 700.0, 480.0), None),
)
DATABASE: Any = cantools.database.load_string((files("edgemask_runtime.sinks") / "edgemask.dbc").read_text(), "dbc")


def allowing(*records: CanRecord, max_age_ms: int = 60_000) -> Manifest:
    given = manifest_of(b"", "onnxruntime", False)
    return dataclasses.replace(given, can=records, outputs=OUTPUTS, frame=FRAME, max_age_ms=max_age_ms)


@pytest.fixture
def channel() -> str:
    return f"channel {random.random()}"


@pytest.fixture
def bus(channel: str) -> Iterator[can.BusABC]:
    with can.Bus(channel, "virtual", ignore_config=True) as listening:
        yield listening


def received(bus: can.BusABC) -> Iterator[can.Message]:
    """The frames that come; ends the test when none comes any more."""
    while True:
        frame = bus.recv(PATIENCE_S)
        assert frame, "nothing came"
        yield frame


def decoded(name: str, data: bytes, **options: Any) -> dict[str, Any]:
    signals: dict[str, Any] = DATABASE.get_message_by_name(name).decode(data, **options)
    return signals


def of_validity(bus: can.BusABC, validity: str, name: str = "EdgemaskClassification") -> dict[str, Any]:
    """The first frame that says so."""
    told = (decoded(name, frame.data) for frame in received(bus))
    return next(signals for signals in told if signals["Validity"] == validity)


def encoded(record: CanRecord, reading: Reading, *, frame: int = 77, age_ms: float = 12.9) -> list[bytearray]:
    return list(Encoder(record, FRAME).frames(State(VALID, answer(frame, reading), age_ms)))


# --- protection ---


def test_profile_11_has_the_specification_s_examples() -> None:
    """AUTOSAR_FO_PRS_E2EProtocol: data identifier 0x123 in both bytes, eight bytes of zero, counters 0 and 1."""
    for counter, expected in enumerate(("cc00000000000000", "9101000000000000")):
        data = bytearray(8)
        protect_11(data, 0x123, counter)
        assert data.hex() == expected


def test_profile_5_has_the_specification_s_example() -> None:
    data = bytearray(8)
    protect_5(data, 0x1234, 0)
    assert data.hex() == "1cca000000000000"


@given(st.binary(min_size=8, max_size=8), st.integers(0, 0xFFFF), st.integers(0, 1000))
@settings(deadline=None)
def test_another_implementation_finds_the_protection_right(data: bytes, data_id: int, counter: int) -> None:
    ours, long = bytearray(data), bytearray(data * 8)
    protect_11(ours, data_id, counter)
    assert e2e.p11.e2e_p11_check(ours, data_id, data_id_mode=e2e.p11.E2E_P11_DATAID_BOTH)
    assert (ours[1] & 15, ours[1] >> 4, ours[2:]) == (counter % 15, data[1] >> 4, data[2:])
    assert e2e.p01.e2e_p01_check(ours, data_id, data_id_mode=e2e.p01.E2E_P01_DATAID_BOTH)
    protect_5(long, data_id, counter)
    assert e2e.p05.e2e_p05_check(long, data_id)
    assert (long[2], long[3:]) == (counter % 256, (data * 8)[3:])


# --- what frames say ---


def test_a_classification_by_hand_and_by_the_dbc() -> None:
    (data,) = encoded(CLASSES, Reading((Guess(1025, "bob", 0.75),), True, {}))
    assert data[1:].hex() == "10" + "0104" + f"{round(0.75 * 250):02x}" + "0c00" + f"{77 % 64 | 1 << 6:02x}"
    signals = decoded("EdgemaskClassification", data)
    assert (signals["Validity"], signals["TopClass"], signals["Suspicious"]) == ("Valid", 1025, "Yes")
    assert (signals["TopScore"], signals["Age"]) == (pytest.approx(0.75, abs=0.0021), 12)


@pytest.mark.parametrize("record", [CLASSES, OBJECTS, OBJECTS_FD], ids=lambda record: record.message)
def test_without_an_answer_nothing_looks_like_one(record: CanRecord) -> None:
    (data,) = Encoder(record, FRAME).frames(State(STALLED))
    name = {"classification": "EdgemaskClassification", "objects": "EdgemaskObjects"}.get(record.message)
    signals = decoded(name or "EdgemaskObjectsFd", data)
    told = {name: str(value) for name, value in signals.items() if name not in ("Crc", "Counter", "Part")}
    assert told.pop("Validity") == "Stalled"
    assert told.pop("FrameNumber") == "0"
    assert set(told.values()) <= {"None", "NotAvailable", "NotJudged"}


def object_signals(data: bytes) -> dict[int, dict[str, Any]]:
    signals = decoded("EdgemaskObjectsFd", data)
    return {n: {k[7:]: v for k, v in signals.items() if k.startswith(f"Object{n}")} for n in range(1, 7)}


def test_objects_fit_into_one_frame_of_can_fd() -> None:
    (data,) = encoded(OBJECTS_FD, Reading((), None, {}, FOUND))
    assert len(data) == 64
    objects = object_signals(data)
    assert (objects[1]["Class"], objects[1]["Recognised"], objects[2]["Recognised"]) == (3, 17, "None")
    sides = [objects[1][side] for side in ("Left", "Top", "Right", "Bottom")]
    assert sides == pytest.approx([0.1, 0.1, 0.5, 0.5], abs=0.0005)
    assert [objects[2][side] for side in ("Left", "Top", "Right", "Bottom")] == [0, 0, 1, 1]
    assert set(map(str, objects[3].values())) == {"None", "NotAvailable"}
    signals = decoded("EdgemaskObjectsFd", data)
    assert (signals["Count"], signals["FrameNumber"], signals["Age"]) == (2, 77, 12)
    # By hand, from the layout: nine bytes an object behind ten; class, then what is recognised, 12 bits each.
    assert data[10:13].hex() == "031001"
    assert data[13] == round(0.9 * 250)


def test_the_same_objects_come_in_parts_on_classic_can() -> None:
    reading = Reading((), False, {}, FOUND)
    parts = [decoded("EdgemaskObjects", data) for data in encoded(OBJECTS, reading)]
    assert [part["Part"] for part in parts] == [0, 1, 2, 3, 4]
    assert [part["Counter"] for part in parts] == [0, 1, 2, 3, 4]
    assert {part["FrameNumber"] for part in parts} == {77 % 16}
    assert (parts[0]["Count"], parts[0]["Suspicious"]) == (2, "No")
    together = {name: value for part in parts for name, value in part.items() if name.startswith("Object")}
    (whole,) = encoded(OBJECTS_FD, reading)
    expected = decoded("EdgemaskObjectsFd", whole)
    assert together == {name: expected[name] for name in together}
    assert len(together) == 2 * 7


def test_more_than_there_is_room_for_is_counted() -> None:
    many = Reading((), None, {}, FOUND[:1] * 300)
    (data,) = encoded(OBJECTS_FD, many)
    assert decoded("EdgemaskObjectsFd", data)["Count"] == 254
    assert len(encoded(OBJECTS, many)) == 1 + 2 * 6


def test_what_does_not_fit_is_never_another_value() -> None:
    odd = Detection(70_000, None, None, (None, 1.0, 2.0, 3.0), None)
    (data,) = encoded(OBJECTS_FD, Reading((), None, {}, (odd,)), age_ms=1e9)
    objects = object_signals(data)
    assert (objects[1]["Class"], objects[1]["Score"], objects[1]["Left"]) == (
        "BeyondRange",
        "NotAvailable",
        "NotAvailable",
    )
    assert decoded("EdgemaskObjectsFd", data, decode_choices=False)["Age"] == 65534
    (data,) = encoded(CLASSES, Reading((), None, {}))
    assert decoded("EdgemaskClassification", data)["TopClass"] == "None"


@given(
    st.lists(
        st.builds(
            Detection,
            st.integers(0, 4093),
            st.none(),
            st.floats(0, 1),
            st.tuples(*[st.floats(0, 480)] * 4),
            st.none(),
        ),
        max_size=6,
    ),
    st.integers(0, 10**9),
    st.floats(0, 65533),
)
@settings(deadline=None)
def test_any_objects_come_back_as_they_were(found: list[Detection], frame: int, age_ms: float) -> None:
    (data,) = encoded(OBJECTS_FD, Reading((), None, {}, tuple(found)), frame=frame, age_ms=age_ms)
    signals, objects = decoded("EdgemaskObjectsFd", data), object_signals(data)
    assert (signals["Count"], signals["FrameNumber"], signals["Age"]) == (len(found), frame % 256, int(age_ms))
    for number, detection in enumerate(found, 1):
        left, top, right, bottom = detection.box
        shares = (left / 640, top / 480, right / 640, bottom / 480)  # type: ignore[operator]
        assert [objects[number][side] for side in ("Left", "Top", "Right", "Bottom")] == pytest.approx(shares, abs=6e-4)
        assert objects[number]["Class"] == detection.index
        assert objects[number]["Score"] == pytest.approx(detection.score, abs=2.1e-3)


# --- on the bus ---


def test_from_start_to_end_a_frame_every_period_each_counted_and_protected(bus: can.BusABC, channel: str) -> None:
    sink = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    frames: list[can.Message] = []
    told = classifications(bus, frames)
    assert next(told)["Validity"] == "Starting"
    sink.write(answer(5), None)
    first = next(signals for signals in told if signals["Validity"] == "Valid")
    later = next(signals for signals in told if signals["Age"] > first["Age"])
    assert (first["TopClass"], first["FrameNumber"], later["FrameNumber"]) == (1, 5, 5)
    sink.invalidate("the source gave nothing for 2 s")
    next(signals for signals in told if signals["Validity"] == "Stalled")
    sink.write(answer(6), None)
    assert next(signals for signals in told if signals["Validity"] == "Valid")["FrameNumber"] == 6
    sink.close()
    last = [decoded("EdgemaskClassification", frame.data) for frame in iter(lambda: bus.recv(0), None) if frame]
    assert last[-1]["Validity"] == "Stopping"
    for number, frame in enumerate(frames):
        assert (frame.arbitration_id, frame.is_extended_id, frame.is_fd) == (0x123, False, False)
        assert e2e.p11.e2e_p11_check(bytearray(frame.data), 0x123, data_id_mode=e2e.p11.E2E_P11_DATAID_BOTH)
        assert frame.data[1] & 15 == number % 15


def classifications(bus: can.BusABC, frames: list[can.Message]) -> Iterator[dict[str, Any]]:
    for frame in received(bus):
        frames.append(frame)
        yield decoded("EdgemaskClassification", frame.data)


def test_an_answer_that_grows_too_old_expires_by_itself(bus: can.BusABC, channel: str) -> None:
    sink = opened("can", allowing(CLASSES, max_age_ms=100), interface="virtual", channel=channel)
    sink.write(answer(1), None)
    assert of_validity(bus, "Expired")["TopClass"] == "None"
    sink.close()


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("the source gave nothing for 5 s", "Stalled"),
        ("the source is lost: unplugged", "Stalled"),
        ("nothing newer within 500 ms", "Expired"),
        ("model down: killed", "ModelDown"),
        (STOPPING_REASON, "Stopping"),
        (ENDED, "Stopping"),
        ("alarm: no entropy", "Failed"),
    ],
)
def test_every_reason_has_its_word(bus: can.BusABC, channel: str, reason: str, told: str) -> None:
    sink = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    sink.invalidate(reason)
    of_validity(bus, told)
    sink.close()


def test_every_message_has_its_own_pace_whatever_the_answers_do(bus: can.BusABC, channel: str) -> None:
    slow = dataclasses.replace(CLASSES, id=0x7, data_id=7, period_ms=1000)
    sink = opened("can", allowing(slow, OBJECTS_FD), interface="virtual", channel=channel)
    seen = list(itertools.islice(received(bus), 60))
    sink.close()
    counts = {number: sum(frame.arbitration_id == number for frame in seen) for number in (0x7, 0x456)}
    assert counts[0x456] > 2 * counts[0x7] > 0
    times = [frame.timestamp for frame in seen if frame.arbitration_id == 0x456]
    assert (times[-1] - times[0]) / (len(times) - 1) >= 0.9 * PERIOD_MS / 1000


def test_the_device_can_only_slow_it_down(bus: can.BusABC, channel: str) -> None:
    sink = opened("can", allowing(CLASSES), interface="virtual", channel=channel, period_ms=60)
    times = [frame.timestamp for frame in itertools.islice(received(bus), 4)]
    sink.close()
    assert times[-1] - times[0] >= 0.1


def test_nothing_but_what_the_bundle_allows_goes_out(bus: can.BusABC, channel: str) -> None:
    with pytest.raises(UserError, match="may send no message") as refusal:
        opened("can", allowing(), interface="virtual", channel=channel)
    assert "[[runtime.can]]" in (refusal.value.hint or "")
    sink = opened("can", allowing(OBJECTS), interface="virtual", channel=channel)
    sink.write(answer(1, Reading((), None, {}, FOUND)), None)
    frames = list(itertools.islice(received(bus), 12))
    sink.close()
    assert {(frame.arbitration_id, frame.is_extended_id, frame.is_fd) for frame in frames} == {(0x1ABCDE, True, False)}


def test_can_fd_over_a_real_network_stack() -> None:
    """python-can's udp_multicast: other sockets, and its own serialisation, in place of Python's queue."""
    place = {"interface": "udp_multicast", "channel": "239.74.163.2"}
    try:
        listening = can.Bus(**place, fd=True, ignore_config=True)  # type: ignore[arg-type]
    except (can.CanError, OSError) as error:
        pytest.skip(f"no multicast here: {error}")
    with listening:
        record = dataclasses.replace(OBJECTS_FD, id=0x600 + os.getpid() % 0x100)
        sink = opened("can", allowing(record), **place, data_bitrate=2_000_000)
        sink.write(answer(9, Reading((), None, {}, FOUND)), None)
        ours = (frame for frame in received(listening) if frame.arbitration_id == record.id)
        valid = next(frame for frame in ours if decoded("EdgemaskObjectsFd", frame.data)["Validity"] == "Valid")
        sink.close()
    assert (valid.is_fd, valid.bitrate_switch, valid.dlc) == (True, True, 64)
    assert e2e.p05.e2e_p05_check(bytearray(valid.data), OBJECTS_FD.data_id)


class Broken(VirtualBus):
    """A bus whose controller has trouble while `error` is set."""

    error: Exception | None = None
    absent: Exception | None = None
    made = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if Broken.absent:
            raise Broken.absent
        type(self).made += 1
        super().__init__(*arguments, **options)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        if Broken.error:
            raise Broken.error
        super().send(msg, timeout)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Broken]:
    monkeypatch.setattr("can.interfaces.virtual.VirtualBus", Broken)
    monkeypatch.setattr(Broken, "error", None)
    monkeypatch.setattr(Broken, "absent", None)
    monkeypatch.setattr(Broken, "made", 0)
    return Broken


def test_a_full_queue_drops_and_what_comes_after_is_new(
    bus: can.BusABC, channel: str, broken: type[Broken], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgemaskd")
    sink: Any = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    sink.write(answer(1), None)
    of_validity(bus, "Valid")
    broken.error = can.CanOperationError("Failed to transmit: No buffer space available", errno.ENOBUFS)
    eventually(lambda: sink._fault)
    with pytest.raises(UserError, match=r"cannot send: .*No buffer space"):
        sink.write(answer(2), None)
    while bus.recv(0):
        pass
    broken.error = None
    assert decoded("EdgemaskClassification", next(received(bus)).data)["FrameNumber"] == 2
    eventually(lambda: not sink._fault)
    sink.write(answer(3), None)
    sink.close()
    assert caplog.text.count("No buffer space") < 5
    assert "sends again" in caplog.text


@pytest.mark.parametrize("error", [OSError(errno.ENODEV, "No such device"), TypeError("a driver's bug")])
def test_an_adapter_that_goes_is_opened_again_when_it_comes_back(
    bus: can.BusABC, channel: str, broken: type[Broken], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("edgemask_runtime.sinks.can.REOPEN_S", 0.05)
    sink: Any = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    next(received(bus))
    broken.error = error
    eventually(lambda: broken.made > 3)
    broken.error = None
    sink.invalidate("the source is lost")
    of_validity(bus, "Stalled")
    sink.close()


def test_bus_off_is_said(bus: can.BusABC, channel: str, broken: type[Broken], caplog: pytest.LogCaptureFixture) -> None:
    sink: Any = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    off = can.Message(arbitration_id=0x40, is_error_frame=True, dlc=8, data=bytes(8))
    sink._bus.set_filters(None)
    bus.send(off)
    eventually(lambda: "bus off" in caplog.text)
    sink.close()


def test_a_bus_that_comes_late_is_waited_for(
    bus: can.BusABC, channel: str, broken: type[Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemask_runtime.sinks.can.REOPEN_S", 0.05)
    broken.absent = OSError(errno.ENODEV, "No such device")
    sink = opened("can", allowing(CLASSES), interface="virtual", channel=channel)
    with pytest.raises(Unreachable, match=r"cannot be opened: .*No such device$"):
        sink.write(answer(4), None)
    broken.absent = None
    assert of_validity(bus, "Valid")["FrameNumber"] == 4
    sink.close()


def test_an_interface_that_does_not_exist_is_said_at_once() -> None:
    with pytest.raises(UserError, match="unknown interface of python-can 'virtuel'"):
        opened("can", allowing(CLASSES), channel="0", interface="virtuel")


def test_another_bundle_brings_what_it_allows(bus: can.BusABC, channel: str) -> None:
    loaded = [allowing(CLASSES)]
    context = SinkContext("door", loaded[0], lambda: dataclasses.replace(loaded[0]))
    sink = open_sink("can", sink_settings("can")(interface="virtual", channel=channel), context)
    sink.write(answer(1), None)
    of_validity(bus, "Valid")
    nine = [decoded("EdgemaskClassification", frame.data) for frame in itertools.islice(received(bus), 9)]
    assert [signals["Validity"] for signals in nine] == ["Valid"] * 9
    loaded[0] = allowing(OBJECTS_FD)
    frame = next(frame for frame in received(bus) if frame.arbitration_id == OBJECTS_FD.id)
    assert decoded("EdgemaskObjectsFd", frame.data)["Validity"] != "Valid"
    assert {frame.arbitration_id for frame in itertools.islice(received(bus), 5)} == {OBJECTS_FD.id}
    loaded[0] = allowing()
    eventually(lambda: sink._encoders == [])  # type: ignore[attr-defined]
    sink.close()
    while bus.recv(0):
        pass


# --- the DBC ---


def test_a_bundle_s_dbc_has_its_messages_identifiers_and_names(tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(can=(dataclasses.replace(CLASSES, extended=True, period_ms=40),), labels=("ann", 'b"ob', "é☃"))
    told = run_daemon("dbc", bundle, "-o", tmp_path / "tiny.dbc", timeout_s=60)
    assert told.returncode == 0, told.stderr
    database: Any = cantools.database.load_file(tmp_path / "tiny.dbc")
    (message,) = database.messages
    assert (message.frame_id, message.is_extended_frame, message.cycle_time) == (0x123, True, 40)
    assert message.comment.endswith("Data identifier 0x0123.")
    names = [
        message.decode(encoded(CLASSES, Reading((Guess(n, None, 0.5),), None, {}))[0])["TopClass"] for n in range(4)
    ]
    assert names == ["ann", "b'ob", "é?", 3]
    own = {signal.name: (signal.start, signal.length) for signal in message.signals}
    shipped = DATABASE.get_message_by_name(message.name).signals
    assert own == {signal.name: (signal.start, signal.length) for signal in shipped}


def test_a_bundle_that_sends_nothing_has_no_dbc(tmp_path: Path, make_bundle: MakeBundle) -> None:
    told = run_daemon("dbc", make_bundle(), "-o", tmp_path / "tiny.dbc", timeout_s=60)
    assert told.returncode == 2
    assert "[[runtime.can]]" in told.stderr
    assert not (tmp_path / "tiny.dbc").exists()


def test_the_dbc_leaves_no_gap_and_no_overlap() -> None:
    for message in DATABASE.messages:
        assert message.signals[0].name == "Crc"
        assert message.length == (64 if message.is_fd else 8)
    assert (STARTING, VALID, STALLED, EXPIRED, STOPPING) == (0, 1, 2, 3, 5)
    words = DATABASE.get_message_by_name("EdgemaskClassification").get_signal_by_name("Validity").choices
    assert {int(number): str(word) for number, word in words.items()} == {
        0: "Starting",
        1: "Valid",
        2: "Stalled",
        3: "Expired",
        4: "ModelDown",
        5: "Stopping",
        6: "Failed",
    }
