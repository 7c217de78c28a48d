"""gRPC, spoken byte by byte: messages are written and read here by hand, as the wire format states them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool

from edgemask_runtime.api.opening import control_of, open_door
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.errors import UserError
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.settings import DoorSettings

from .serving import WAIT_S
from .tiny import CLASSES, SHAPE, MakeBundle, picture

Call = Callable[..., bytes]


@pytest.fixture(scope="module")
def channel(make_bundle: MakeBundle) -> Iterator[grpc.Channel]:
    server = open_door(
        "grpc", control_of({"tiny": Predictor.open(Bundle.open(make_bundle(noisy=True)))}), DoorSettings("[::1]:0")
    )
    try:
        with grpc.insecure_channel(server.url.removeprefix("grpc://")) as channel:
            yield channel
    finally:
        server.close()


@pytest.fixture
def call(channel: grpc.Channel) -> Call:
    def call(method: str, request: bytes = b"") -> bytes:
        done: bytes = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(request, timeout=WAIT_S)
        return done

    return call


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(message: bytes) -> list[tuple[int, Any]]:
    """Number and value of each field, text and messages as bytes."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        size = number()
        if tag & 7 == 2:
            found.append((tag >> 3, message[at : at + size]))
            at += size
        else:
            found.append((tag >> 3, size))
    return found


def parameter(number: int, name: str, choice: int, value: Any) -> bytes:
    return field(number, field(1, name) + field(2, field(choice, value)))


def tensor(*more: bytes, name: str = "frame", rows: int = 1, datatype: str = "UINT8") -> bytes:
    shape = b"".join(field(3, size) for size in (rows, *SHAPE))
    return field(5, field(1, name) + field(2, datatype) + shape + b"".join(more))


def request(*parts: bytes, model: str = "tiny") -> bytes:
    return field(1, model) + b"".join(parts)


def raw(*answers: int) -> bytes:
    return field(7, b"".join(picture(answer).tobytes() for answer in answers))


def test_a_frame_is_answered(call: Call) -> None:
    answer = fields(call("ModelInfer", request(field(3, "id7"), tensor(rows=2), raw(3, 1))))
    assert dict(answer)[1] == b"tiny"
    assert dict(answer)[3] == b"id7"
    output = fields(dict(answer)[5])
    assert output == [(1, b"probabilities"), (2, b"FP32"), (3, bytes([2, CLASSES]))]
    values = np.frombuffer(dict(answer)[6], "<f4").reshape(2, CLASSES)
    assert values.argmax(1).tolist() == [3, 1]


def test_a_frame_may_come_as_numbers(call: Call) -> None:
    numbers = b"".join(map(varint, picture(2).ravel().tolist()))
    answer = dict(fields(call("ModelInfer", request(tensor(field(5, field(4, numbers)))))))
    assert np.frombuffer(answer[6], "<f4").argmax() == 2


def test_the_server_and_the_model_describe_themselves(call: Call) -> None:
    assert fields(call("ServerLive")) == fields(call("ServerReady")) == [(1, 1)]
    assert fields(call("ModelReady", field(1, "tiny"))) == [(1, 1)]
    assert fields(call("ServerMetadata"))[0] == (1, b"edgemaskd")
    metadata = fields(call("ModelMetadata", field(1, "tiny")))
    assert [number for number, _ in metadata] == [1, 2, 3, 4, 5]
    minus_one = b"\xff" * 9 + b"\x01"
    assert fields(metadata[3][1]) == [(1, b"frame"), (2, b"UINT8"), (3, minus_one + bytes(SHAPE))]
    config = dict(fields(dict(fields(call("ModelConfig", field(1, "tiny"))))[1]))
    assert (config[1], config[4]) == (b"tiny", 64)
    assert fields(config[6]) == [(1, b"probabilities"), (2, 11), (3, bytes([CLASSES]))]
    counted = fields(dict(fields(call("ModelStatistics", field(1, "tiny"))))[1])
    assert counted[0] == (1, b"tiny")


@pytest.mark.parametrize(
    ("wrong", "code", "reason"),
    [
        (request(raw(0)), "INVALID_ARGUMENT", "only input"),
        (request(tensor(), tensor(name="entropy"), raw(0)), "INVALID_ARGUMENT", "only input"),
        (request(tensor(name="key"), raw(0)), "INVALID_ARGUMENT", "only input"),
        (request(tensor(), raw(0), parameter(4, "entropy", 3, "00")), "INVALID_ARGUMENT", "runtime alone"),
        (request(tensor(datatype="FP32"), raw(0)), "INVALID_ARGUMENT", "UINT8"),
        (request(tensor(rows=65), raw(0)), "INVALID_ARGUMENT", "takes shape"),
        (request(tensor(), raw(0, 0)), "INVALID_ARGUMENT", "48 binary bytes"),
        (request(tensor(), raw(0), raw(0)), "INVALID_ARGUMENT", "one way"),
        (request(tensor()), "INVALID_ARGUMENT", "one way"),
        (request(tensor(field(5, field(4, varint(256)))), b""), "INVALID_ARGUMENT", "0 to 255"),
        (request(tensor(field(5, field(6, struct.pack("<f", 1.0)))), b""), "INVALID_ARGUMENT", "one way"),
        (request(tensor(), raw(0), field(6, field(1, "entropy"))), "INVALID_ARGUMENT", "unknown output"),
        (request(tensor(), raw(0), *[field(6, field(1, "probabilities"))] * 2), "INVALID_ARGUMENT", "twice"),
        (request(tensor(parameter(4, "shared_memory_region", 3, "r"))), "INVALID_ARGUMENT", "whole numbers"),
        (request(tensor(), raw(0), model="tinny"), "NOT_FOUND", "did you mean 'tiny'?"),
        (request(tensor(), raw(0), field(2, "1")), "NOT_FOUND", "unknown version"),
    ],
)
def test_a_wrong_request_is_refused(call: Call, wrong: bytes, code: str, reason: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call("ModelInfer", wrong)
    assert refused.value.code().name == code
    assert reason in refused.value.details()


def test_what_is_no_message_is_refused(call: Call) -> None:
    with pytest.raises(grpc.RpcError):
        call("ModelInfer", b"\xff\xff\xff")
    assert fields(call("ServerLive")) == [(1, 1)]


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_nothing_can_be_uploaded(call: Call, name: str) -> None:
    with pytest.raises(grpc.RpcError, match="nothing can be uploaded"):
        call("RepositoryModelLoad", field(2, "tiny") + parameter(3, name, 4, b"x"))


def test_one_refusal_does_not_end_a_stream(channel: grpc.Channel) -> None:
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    asked = [request(field(3, "a"), tensor(), raw(1)), request(tensor()), request(field(3, "c"), tensor(), raw(2))]
    answers = [dict(fields(answer)) for answer in stream(iter(asked), timeout=WAIT_S)]
    assert [1 in answer for answer in answers] == [False, True, False]
    values = [np.frombuffer(dict(fields(answers[at][2]))[6], "<f4").argmax() for at in (0, 2)]
    assert values == [1, 2]


def test_a_port_is_not_shared(channel: grpc.Channel, make_bundle: MakeBundle) -> None:
    control = control_of({})
    first = open_door("grpc", control, DoorSettings("127.0.0.1:0"))
    try:
        with pytest.raises(UserError, match="cannot listen"):
            open_door("grpc", control, DoorSettings(first.url.removeprefix("grpc://")))
    finally:
        first.close()


def test_nothing_is_in_the_common_pool() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
