"""Several models behind one server: names, readiness, counts; and clients that misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask_runtime.about import Outputs
from edgemask_runtime.api import server as server_module
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.errors import ModelDown
from edgemask_runtime.predictor import Predictor

from .serving import WAIT_S, connect, everything, request_bytes, serving
from .tiny import CLASSES, SHAPE, MakeBundle, picture

BODY = json.dumps(
    {"inputs": [{"name": "frame", "datatype": "UINT8", "shape": [1, *SHAPE], "data": picture(2).ravel().tolist()}]}
).encode()


class Fallible(Predictor):
    """A model whose process may be gone for the moment."""

    trouble: str | None = None

    def predict(self, frames: Any) -> Outputs:
        if self.trouble:
            raise ModelDown("the model is being started again")
        return super().predict(frames)


class Waiting(Predictor):
    """A model that answers when the test says so."""

    def __init__(self, *arguments: Any) -> None:
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        super().__init__(*arguments)

    def predict(self, frames: Any) -> Outputs:
        self.asked.set()
        assert self.may_answer.wait(WAIT_S)
        return super().predict(frames)


@pytest.fixture(scope="module")
def tiny(make_bundle: MakeBundle) -> Predictor:
    return Predictor.open(Bundle.open(make_bundle()))


@pytest.fixture(scope="module")
def waiting(make_bundle: MakeBundle) -> Predictor:
    return Waiting.open(Bundle.open(make_bundle()))


@pytest.fixture(scope="module")
def client(tiny: Predictor, waiting: Predictor, make_bundle: MakeBundle) -> Iterator[httpx.Client]:
    other = Predictor.open(Bundle.open(make_bundle("litert", name="other")))
    with serving({"tiny": tiny, "second": other, "waiting": waiting}) as client:
        yield client


def ask(client: httpx.Client, name: str) -> httpx.Response:
    return client.post(f"/v2/models/{name}/infer", content=BODY)


def test_every_model_answers_under_its_own_name(client: httpx.Client) -> None:
    for name, platform in (("tiny", "onnxruntime_onnx"), ("second", "litert_tflite")):
        answer = ask(client, name).raise_for_status().json()
        assert answer["model_name"] == name
        assert np.argmax(answer["outputs"][0]["data"]) == 2
        metadata = client.get(f"/v2/models/{name}").json()
        assert (metadata["name"], metadata["platform"]) == (name, platform)
        assert metadata["versions"] == [answer["model_version"]]
    missing = ask(client, "secnd")
    assert missing.status_code == 404
    assert "did you mean 'second'?" in missing.json()["error"]


def test_the_configuration_agrees_with_the_metadata(client: httpx.Client) -> None:
    free, fixed = (client.get(f"/v2/models/{name}/config").json() for name in ("tiny", "second"))
    assert (free["max_batch_size"], free["input"][0]["dims"], free["output"][0]["dims"]) == (64, [*SHAPE], [CLASSES])
    assert (fixed["max_batch_size"], fixed["input"][0]["dims"]) == (0, [1, *SHAPE])
    assert fixed["output"] == [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [1, CLASSES]}]
    assert free["parameters"]["digest"]["string_value"] != fixed["parameters"]["digest"]["string_value"]
    assert [model["parameters"]["provider"]["string_value"] for model in (free, fixed)] == ["cpu", "xnnpack"]


def test_counts_are_of_what_was_asked(client: httpx.Client) -> None:
    def stats() -> dict[str, Any]:
        return client.get("/v2/models/tiny/stats").json()["model_stats"][0]

    before = stats()
    frames = np.stack([picture(1)] * 3)
    entry = {"name": "frame", "datatype": "UINT8", "shape": [3, *SHAPE], "data": frames.ravel().tolist()}
    client.post("/v2/models/tiny/infer", json={"inputs": [entry]}).raise_for_status()
    ask(client, "tiny").raise_for_status()
    assert client.post("/v2/models/tiny/infer", json={}).status_code == 400
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 2
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert after["last_inference"] > before["last_inference"] >= 0
    parts = [after["inference_stats"][name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert all(part["count"] == after["execution_count"] and part["ns"] > 0 for part in parts)
    assert after["inference_stats"]["success"]["ns"] == sum(part["ns"] for part in parts)
    assert {batch["batch_size"] for batch in after["batch_stats"]} >= {1, 3}
    both = client.get("/v2/models/stats").json()["model_stats"]
    assert [each["name"] for each in both] == ["second", "tiny", "waiting"]


def test_a_model_that_is_down_says_so_and_the_others_answer(tiny: Predictor, make_bundle: MakeBundle) -> None:
    fallen = Fallible.open(Bundle.open(make_bundle()))
    with serving({"tiny": tiny, "fallen": fallen}) as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        fallen.trouble = "it is being started again"  # type: ignore[attr-defined]
        assert client.get("/v2/health/live").status_code == 200
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert client.get("/v2/models/fallen/ready").status_code == 503
        assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
        refused = ask(client, "fallen")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "being started again" in refused.json()["error"]
        assert ask(client, "tiny").status_code == 200
        states = {each["name"]: each["state"] for each in client.post("/v2/repository/index").json()}
        assert states == {"tiny": "READY", "fallen": "UNAVAILABLE"}
        ready_ones = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [each["name"] for each in ready_ones] == ["tiny"]


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"key": "x"}])
@pytest.mark.parametrize("action", ["load", "unload"])
def test_nothing_can_be_uploaded(client: httpx.Client, action: str, parameters: dict[str, str]) -> None:
    refused = client.post(f"/v2/repository/models/tiny/{action}", json={"parameters": parameters})
    assert refused.status_code == 400
    assert "nothing can be uploaded" in refused.json()["error"]
    assert client.post(f"/v2/repository/models/tiny/{action}").status_code == 403


def test_entropy_and_key_are_nobodys_to_give(client: httpx.Client) -> None:
    whole = json.loads(BODY)
    for name in ("entropy", "key", "Key"):
        assert client.post("/v2/models/tiny/infer", json=whole | {"parameters": {name: "00"}}).status_code == 400
        tensor = whole["inputs"][0] | {"name": name}
        assert client.post("/v2/models/tiny/infer", json={"inputs": [*whole["inputs"], tensor]}).status_code == 400


def test_requests_in_one_packet_are_answered_in_their_order(client: httpx.Client) -> None:
    packet = b"".join(
        request_bytes("/v2/models/tiny/infer", json.dumps(json.loads(BODY) | {"id": str(number)}).encode())
        for number in range(20)
    )
    packet += request_bytes("/v2/health/live", method="GET", Connection="close")
    with connect(client) as connection:
        connection.sendall(packet)
        answers = everything(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 21
    bodies = [json.loads(answer.split(b"\r\n\r\n", 1)[1]) for answer in answers]
    assert [body.get("id") for body in bodies[:-1]] == [str(number) for number in range(20)]
    assert bodies[-1] == {"live": True}


def test_who_goes_away_while_the_model_runs_takes_nothing_along(client: httpx.Client, waiting: Waiting) -> None:
    waiting.asked.clear()
    waiting.may_answer.clear()
    connections = [connect(client) for _ in range(8)]
    for connection in connections:
        connection.sendall(request_bytes("/v2/models/waiting/infer", BODY))
    assert waiting.asked.wait(WAIT_S)
    for connection in connections:
        connection.close()
    waiting.may_answer.set()
    for _ in range(80):
        assert ask(client, "waiting").status_code == 200


def test_a_client_that_stops_in_a_request_is_cut_off(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.2)
    whole = request_bytes("/v2/models/tiny/infer", BODY)
    for sent in (b"", whole[:10], whole[:-1]):
        with connect(client) as connection:
            connection.sendall(sent)
            assert everything(connection) == b""


def test_a_client_that_does_not_take_its_answers_is_cut_off(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PATIENCE_S", 0.5)
    packet = request_bytes("/openapi.json", method="GET") * 100
    with connect(client) as connection, pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
        while True:
            connection.sendall(packet)
    assert ask(client, "tiny").status_code == 200


METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"BREW", b"PRI"])
PATHS = st.sampled_from(
    [b"/v2", b"/v2/models/tiny/infer", b"/v2/repository/index", b"*", b"/%ff%00", b"//x:y", b"http://"]
)
HEADERS = st.sampled_from(
    [
        b"Host: localhost",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Inference-Header-Content-Length: 3",
        b"Expect: 100-continue",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c",
        b"Content-Type: image/png",
        b"X: \xff\x00",
        b" folded",
    ]
)
REQUESTS = st.builds(
    lambda method, path, headers, body: b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method, path, b"\r\n".join(headers), body),
    METHODS,
    PATHS,
    st.lists(HEADERS, max_size=5),
    st.one_of(st.binary(max_size=40), st.just(BODY), st.just(b"5\r\nabcde\r\n0\r\n\r\n"), st.just(b"fffffffff\r\n")),
)


@settings(max_examples=150, deadline=None)
@given(packets=st.lists(st.one_of(REQUESTS, st.binary(max_size=60)), min_size=1, max_size=3))
def test_any_bytes_on_the_socket_do_no_harm(client: httpx.Client, packets: list[bytes]) -> None:
    with connect(client) as connection:
        try:
            for packet in packets:
                connection.sendall(packet)
            connection.shutdown(1)
        except OSError:
            pass
        answer = everything(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert client.get("/v2/health/live").status_code == 200
