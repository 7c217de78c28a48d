from __future__ import annotations

import concurrent.futures
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.http import MAX_IN_FLIGHT
from edgemask_runtime.api.oip import decode

from .running import running_daemon
from .tiny import CLASSES, PIXELS, SHAPE, MakeBundle, manifest_of, picture

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client(make_bundle: MakeBundle) -> Iterator[httpx.Client]:
    with running_daemon(make_bundle(noisy=True)) as daemon, httpx.Client(base_url=daemon.url) as client:
        yield client


@pytest.fixture(scope="module")
def fixed_batch(make_bundle: MakeBundle) -> Iterator[httpx.Client]:
    with running_daemon(make_bundle("litert")) as daemon, httpx.Client(base_url=daemon.url) as client:
        yield client


def frame_input(**changes: Any) -> dict[str, Any]:
    data = picture(2).ravel().tolist()
    return {"name": "frame", "datatype": "UINT8", "shape": [1, *SHAPE], "data": data} | changes


def binary_request(frames: np.ndarray[Any, Any], **request: Any) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "frame", "datatype": "UINT8", "shape": list(frames.shape)}
    entry["parameters"] = {"binary_data_size": frames.nbytes}
    header = json.dumps({"inputs": [entry], **request}).encode()
    return header + frames.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def test_health_and_metadata(client: httpx.Client) -> None:
    assert client.get("/v2").json()["name"] == "edgemaskd"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    model = client.get("/v2/models/tiny").json()
    assert model["inputs"] == [{"name": "frame", "datatype": "UINT8", "shape": [-1, 8, 6, 1]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}]
    assert "entropy" not in json.dumps(model)


def test_json_tensors_flat_or_nested(client: httpx.Client) -> None:
    for data in (picture(2).ravel().tolist(), picture(2)[None].tolist()):
        answer = client.post(INFER, json={"id": "a1", "inputs": [frame_input(data=data)]}).raise_for_status().json()
        output = answer["outputs"][0]
        assert (answer["id"], answer["model_name"], output["shape"]) == ("a1", "tiny", [1, CLASSES])
        assert np.argmax(output["data"]) == 2


def test_binary_tensors_both_ways_and_batches(client: httpx.Client) -> None:
    frames = np.stack([picture(answer) for answer in (3, 0, 1)])
    body, headers = binary_request(frames, parameters={"binary_data_output": True})
    response = client.post(INFER, content=body, headers=headers).raise_for_status()
    split = int(response.headers["Inference-Header-Content-Length"])
    output = json.loads(response.content[:split])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": 3 * CLASSES * 4}
    values = np.frombuffer(response.content[split:], "<f4").reshape(output["shape"])
    assert values.argmax(axis=1).tolist() == [3, 0, 1]


def test_binary_in_json_out(client: httpx.Client) -> None:
    wanted = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    body, headers = binary_request(picture(1)[None], outputs=wanted, parameters={"binary_data_output": True})
    response = client.post(INFER, content=body, headers=headers).raise_for_status()
    assert "Inference-Header-Content-Length" not in response.headers
    assert np.argmax(response.json()["outputs"][0]["data"]) == 1


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (
            [frame_input(), {"name": "entropy", "datatype": "UINT8", "shape": [1, PIXELS], "data": [0] * PIXELS}],
            "only input",
        ),
        ([frame_input(), frame_input(name="key")], "only input"),
        ([frame_input(name="entropy")], "only input"),
        ([], "only input"),
        ("frame", "must be a list"),
        ([3], "must be a JSON object"),
        ([frame_input(datatype="FP32")], "UINT8"),
        ([frame_input(shape=[1, 6, 8, 1])], r"\[1 to 64, 8, 6, 1\]"),
        ([frame_input(shape=[0, *SHAPE], data=[])], "takes shape"),
        ([frame_input(shape=[65, *SHAPE])], "takes shape"),
        ([frame_input(shape=[10**30, *SHAPE])], "takes shape"),
        ([frame_input(shape=[True, *SHAPE])], "whole numbers"),
        ([frame_input(shape="8")], "whole numbers"),
        ([frame_input(shape=[])], "takes shape"),
        ([frame_input(data=[256] * PIXELS)], "0 to 255"),
        ([frame_input(data=[-1] * PIXELS)], "0 to 255"),
        ([frame_input(data=[10**30] * PIXELS)], "0 to 255"),
        ([frame_input(data=[0.5] * PIXELS)], "0 to 255"),
        ([frame_input(data=["x"] * PIXELS)], "0 to 255"),
        ([frame_input(data=[True] * PIXELS)], "0 to 255"),
        ([frame_input(data=[0] * (PIXELS - 1))], "0 to 255"),
        ([frame_input(data=[])], "0 to 255"),
        ([frame_input(data=[[1], 2])], "0 to 255"),
        ([frame_input(data=None)], "either 'data'"),
        ([frame_input(parameters=3)], "'parameters'"),
        ([frame_input(parameters={"binary_data_size": PIXELS})], "binary bytes"),
    ],
)
def test_a_wrong_input_is_refused(client: httpx.Client, inputs: Any, reason: str) -> None:
    response = client.post(INFER, json={"inputs": inputs})
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert reason.replace("\\", "") in response.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"{", {}),
        (b"[" * 60_000, {}),
        (b"\xff", {}),
        (b"{}", {"Inference-Header-Content-Length": "3"}),
        (b"{}", {"Inference-Header-Content-Length": "-1"}),
        (b"{}", {"Inference-Header-Content-Length": "1e3"}),
        (b"{}", {"Inference-Header-Content-Length": "9" * 5000}),
    ],
)
def test_a_broken_body_is_refused(client: httpx.Client, content: bytes, headers: dict[str, str]) -> None:
    response = client.post(INFER, content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize(
    "request_part",
    [
        {"outputs": [{"name": "entropy"}]},
        {"outputs": 3},
        {"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": "yes"}}]},
        {"parameters": {"binary_data_output": 1}},
        {"id": 3},
    ],
)
def test_a_wrong_wish_is_refused(client: httpx.Client, request_part: dict[str, Any]) -> None:
    assert client.post(INFER, json={"inputs": [frame_input()], **request_part}).status_code == 400


def test_routes_and_methods(client: httpx.Client) -> None:
    assert client.get("/v3").status_code == 404
    assert client.get("/v2/models/other").status_code == 404
    assert client.post("/v2/models/other/infer").status_code == 404
    assert client.post("/v2/health/live").status_code == 405
    assert client.get(INFER).status_code == 405
    assert client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8700"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "rebound.example:8700"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Host": "localhost:8700@rebound.example"}, 403),
        ({"Host": "localhost:8700", "Origin": "http://localhost:8700"}, 200),
        ({"Host": "localhost:8700", "Origin": "http://localhost:80"}, 403),
        ({"Origin": "https://rebound.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_ask(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert client.get("/v2", headers=headers).status_code == status
    assert client.post(INFER, json={"inputs": [frame_input()]}, headers=headers).status_code == status


def test_a_version_is_the_bundles_digest(client: httpx.Client) -> None:
    version = client.get("/v2/models/tiny").json()["versions"][0]
    assert client.get(f"/v2/models/tiny/versions/{version}").json()["versions"] == [version]
    at = f"/v2/models/tiny/versions/{version}/infer"
    assert client.post(at, json={"inputs": [frame_input()]}).json()["model_version"] == version
    other = client.post("/v2/models/tiny/versions/1/infer", json={"inputs": [frame_input()]})
    assert other.status_code == 404
    assert version in other.json()["error"]


def test_too_large_a_body_is_refused_announced_or_not(client: httpx.Client) -> None:
    assert client.post(INFER, content=bytes(1 << 20)).status_code == 413
    assert client.post(INFER, content=(bytes(1 << 12) for _ in range(256))).status_code == 413


def test_a_graph_with_a_fixed_batch_takes_no_other(fixed_batch: httpx.Client) -> None:
    assert fixed_batch.get("/v2/models/tiny").json()["inputs"][0]["shape"] == [1, 8, 6, 1]
    body, headers = binary_request(picture(3)[None])
    answer = fixed_batch.post(INFER, content=body, headers=headers).raise_for_status().json()
    assert np.argmax(answer["outputs"][0]["data"]) == 3
    body, headers = binary_request(np.stack([picture(3)] * 2))
    assert fixed_batch.post(INFER, content=body, headers=headers).status_code == 400


def test_few_requests_wait_the_rest_are_sent_away(client: httpx.Client) -> None:
    with ExitStack() as waiting:
        for _ in range(MAX_IN_FLIGHT):
            waiting.enter_context(half_a_request(client))
        # A request of ours may hold a slot while the last of them arrives: then that one was sent away.
        while client.post(INFER, json={"inputs": [frame_input()]}).status_code != 503:
            waiting.enter_context(half_a_request(client))
    while client.post(INFER, json={"inputs": [frame_input()]}).status_code != 200:
        pass


def half_a_request(client: httpx.Client) -> socket.socket:
    address = urlsplit(str(client.base_url))
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n".encode())
    return connection


def test_no_answer_waits_for_an_acknowledgement(client: httpx.Client) -> None:
    times_s = []
    for _ in range(20):
        started_s = time.perf_counter()
        client.get("/v2/health/live")
        times_s.append(time.perf_counter() - started_s)
    assert sorted(times_s)[10] < 0.03


def test_many_clients_at_once_each_get_their_own_answer(client: httpx.Client) -> None:
    def ask(answer: int) -> bool:
        body, headers = binary_request(picture(answer % 4)[None])
        response = client.post(INFER, content=body, headers=headers).raise_for_status().json()
        return bool(np.argmax(response["outputs"][0]["data"]) == answer % 4)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(80)))


@pytest.mark.parametrize(
    "junk", [b"\0\0\0\0", b"GET / HTTP/9.9\r\n\r\n", b"POST /v2 HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_junk_on_the_socket_does_no_harm(client: httpx.Client, junk: bytes) -> None:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(junk)
        assert b" 400 " in connection.recv(4096).splitlines()[0] + b" "
    assert client.get("/v2/health/live").status_code == 200


SOUND, HEADERS = binary_request(picture(0)[None], id="x", outputs=[{"name": "probabilities"}])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_request_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    length = data.draw(st.sampled_from([None, HEADERS["Inference-Header-Content-Length"], "0", "7"]))
    try:
        request = decode(bytes(body), length, manifest_of(b"", "onnxruntime", True))
    except RequestError as error:
        assert error.status == 400  # noqa: PT017
        return
    assert request.frames.shape[1:] == SHAPE
