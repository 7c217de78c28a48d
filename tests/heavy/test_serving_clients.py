"""Clients that others wrote, as they are: NVIDIA's tritonclient and perf_analyzer, and schemathesis on the document."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from perf_analyzer import perf_analyzer
from PIL import Image
from runtime.identity import SHAPE, identity_bundle

from edgemask_runtime.api.grpc_messages import CLASSES
from edgemask_runtime.api.opening import control_of, open_door
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.settings import DoorSettings

triton_http: Any = pytest.importorskip("tritonclient.http")
triton_grpc: Any = pytest.importorskip("tritonclient.grpc")
shared_memory: Any = pytest.importorskip("tritonclient.utils.shared_memory")
schemathesis: Any = pytest.importorskip("schemathesis")

pytestmark = [pytest.mark.heavy, pytest.mark.serving]

CACHE = Path.home() / ".cache" / "edgemask-tests"
NAME = "identity"
FRAMES = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
WAIT_S = 120


class Doors(NamedTuple):
    http: str
    grpc: str


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    bundle = identity_bundle(tmp_path_factory.mktemp("bundle") / "identity.edgemask")
    control = control_of({NAME: Predictor.open(Bundle.open(bundle))})
    opened = [open_door(protocol, control, DoorSettings("127.0.0.1:0")) for protocol in ("http", "grpc")]
    try:
        yield Doors(*(door.url.split("://")[1] for door in opened))
    finally:
        for door in opened:
            door.close()


class Client(NamedTuple):
    """The same client in both protocols: its module, and a connection."""

    module: Any
    asked: Any

    def tensor(self, frames: Any = FRAMES, **options: Any) -> Any:
        made = self.module.InferInput("frame", frames.shape, "UINT8")
        made.set_data_from_numpy(frames, **options)
        return made


@pytest.fixture(params=["http", "grpc"])
def client(doors: Doors, request: pytest.FixtureRequest) -> Iterator[Client]:
    module = {"http": triton_http, "grpc": triton_grpc}[request.param]
    asked = module.InferenceServerClient(getattr(doors, request.param))
    yield Client(module, asked)
    asked.close()


def plain(client: Client, answer: Any) -> Any:
    """A gRPC message as the document that it is over HTTP."""
    if client.module is triton_http:
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


def test_an_answer_is_the_frames(client: Client) -> None:
    output = client.module.InferRequestedOutput("pixels")
    for outputs in (None, [output]):
        result = client.asked.infer(NAME, [client.tensor()], outputs=outputs, request_id="42")
        np.testing.assert_array_equal(result.as_numpy("pixels"), FRAMES)
        assert plain(client, result.get_response())["id"] == "42"


def test_json_both_ways(doors: Doors) -> None:
    with triton_http.InferenceServerClient(doors.http) as asked:
        tensor = Client(triton_http, asked).tensor(binary_data=False)
        output = triton_http.InferRequestedOutput("pixels", binary_data=False)
        result = asked.infer(NAME, [tensor], outputs=[output])
        np.testing.assert_array_equal(result.as_numpy("pixels"), FRAMES)


def test_health_metadata_configuration(client: Client) -> None:
    asked = client.asked
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready(NAME)
    assert not_ready(asked, "other")
    assert plain(client, asked.get_server_metadata())["name"] == "edgemaskd"
    metadata = plain(client, asked.get_model_metadata(NAME))
    assert [int(size) for size in metadata["inputs"][0]["shape"]] == [-1, *SHAPE]
    assert asked.is_model_ready(NAME, model_version=metadata["versions"][0])
    config = plain(client, asked.get_model_config(NAME))
    config = config.get("config", config)
    assert (config["input"][0]["data_type"], config["output"][0]["name"]) == ("TYPE_UINT8", "pixels")
    everything = json.dumps([metadata, config])
    assert "entropy" not in everything


def not_ready(asked: Any, name: str) -> bool:
    try:
        return not asked.is_model_ready(name)
    except Exception as error:
        return "unknown model" in str(error)


def test_counts(client: Client) -> None:
    def counts() -> dict[str, Any]:
        found: dict[str, Any] = plain(client, client.asked.get_inference_statistics(NAME))["model_stats"][0]
        return found

    client.asked.infer(NAME, [client.tensor()])
    before = int(counts()["inference_count"])
    client.asked.infer(NAME, [client.tensor()])
    assert int(counts()["inference_count"]) - before == len(FRAMES)


@contextmanager
def regions(client: Client) -> Iterator[tuple[Any, Any]]:
    """Shared memory for the frames and for the outputs, registered as `in` and `out`."""
    handles = []
    for name in ("in", "out"):
        key = f"/edgemask-{name}-{uuid.uuid4().hex}"
        handles.append(shared_memory.create_shared_memory_region(name, key, FRAMES.nbytes))
        client.asked.register_system_shared_memory(name, key, FRAMES.nbytes)
    try:
        yield handles[0], handles[1]
    finally:
        client.asked.unregister_system_shared_memory()
        for handle in handles:
            shared_memory.destroy_shared_memory_region(handle)


def test_shared_memory(client: Client) -> None:
    with regions(client) as (source, target):
        shared_memory.set_shared_memory_region(source, [FRAMES])
        tensor = client.module.InferInput("frame", FRAMES.shape, "UINT8")
        tensor.set_shared_memory("in", FRAMES.nbytes)
        output = client.module.InferRequestedOutput("pixels")
        output.set_shared_memory("out", FRAMES.nbytes)
        result = client.asked.infer(NAME, [tensor], outputs=[output])
        described = plain(client, result.get_response())["outputs"][0]
        assert "parameters" not in described
        np.testing.assert_array_equal(shared_memory.get_contents_as_numpy(target, np.uint8, FRAMES.shape), FRAMES)
        status = plain(client, client.asked.get_system_shared_memory_status())
        assert len(status.get("regions", status) if isinstance(status, dict) else status) == 2
    assert not plain(client, client.asked.get_system_shared_memory_status())


def test_repository_traces_and_logs(client: Client) -> None:
    index = plain(client, client.asked.get_model_repository_index())
    assert [each["name"] for each in (index["models"] if isinstance(index, dict) else index)] == [NAME]
    assert "OFF" in json.dumps(plain(client, client.asked.get_trace_settings()))
    assert "log_info" in json.dumps(plain(client, client.asked.get_log_settings()))
    assert not plain(client, client.asked.get_cuda_shared_memory_status())
    classes = client.module.InferRequestedOutput("pixels", class_count=2)
    refused = [
        lambda: client.asked.load_model(NAME),
        lambda: client.asked.load_model(NAME, config="{}"),
        lambda: client.asked.load_model(NAME, config="{}", files={"file:1/model.onnx": b"x"}),
        lambda: client.asked.unload_model(NAME),
        lambda: client.asked.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda: client.asked.update_log_settings({"log_verbose_level": 1}),
        lambda: client.asked.infer(NAME, [client.tensor()], parameters={"entropy": "00"}),
        lambda: client.asked.infer(NAME, [client.module.InferInput("entropy", [1], "UINT8")]),
        lambda: client.asked.infer(NAME, [client.tensor()], outputs=[classes]),
    ]
    for call in refused:
        with pytest.raises(triton_http.InferenceServerException):
            call()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_asyncio(doors: Doors, protocol: str) -> None:
    aio: Any = pytest.importorskip(f"tritonclient.{protocol}.aio")

    async def ask() -> list[Any]:
        asked = aio.InferenceServerClient(getattr(doors, protocol))
        made = [aio.InferInput("frame", FRAMES.shape, "UINT8") for _ in range(8)]
        for number, tensor in enumerate(made):
            tensor.set_data_from_numpy(FRAMES + np.uint8(number))
        try:
            return await asyncio.gather(*(asked.infer(NAME, [tensor]) for tensor in made))
        finally:
            await asked.close()

    for number, result in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(result.as_numpy("pixels"), FRAMES + np.uint8(number))


def test_a_stream(doors: Doors) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton_grpc.InferenceServerClient(doors.grpc) as asked:
        asked.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(5):
            asked.async_stream_infer(NAME, [Client(triton_grpc, asked).tensor()], request_id=str(number))
        for number in range(5):
            result, error = answers.get(timeout=WAIT_S)
            assert error is None
            assert result.get_response().id == str(number)
        asked.stop_stream()


def test_our_messages_are_tritons() -> None:
    """Every field has the number, the type and the place that NVIDIA's generated code knows."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    checked = 0
    for name, made in CLASSES.items():
        if name not in theirs:
            continue
        checked += 1
        same_fields(made.DESCRIPTOR, theirs[name])
    assert checked > 45


def same_fields(ours: Any, other: Any, depth: int = 0) -> None:
    known = {field.name: field for field in other.fields}
    for field in ours.fields:
        match = known[field.name]
        assert (field.number, field.type, field.is_repeated) == (match.number, match.type, match.is_repeated), (
            field.name
        )
        assert bool(field.containing_oneof) == bool(match.containing_oneof) or ours.name == "ModelVersionPolicy"
        if field.message_type and depth < 4:
            same_fields(field.message_type, match.message_type, depth + 1)


@pytest.fixture(scope="module")
def analyzer() -> list[str]:
    command = perf_analyzer(CACHE)
    if command is None:
        pytest.skip("perf_analyzer's libraries come by apt from Debian")
    return command


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("how", [(), ("--shared-memory", "system"), ("--async",), ("--streaming",)])
def test_perf_analyzer(doors: Doors, analyzer: list[str], protocol: str, how: tuple[str, ...]) -> None:
    if how == ("--streaming",) and protocol == "http":
        pytest.skip("streams are gRPC's")
    options = ["-m", NAME, "-u", getattr(doors, protocol), "-i", protocol, "-b", "2", "--concurrency-range", "1:4:3"]
    # Why 999: without it nothing is said of a machine whose figures change.
    options += ["-s", "999", "-p", "500", "--output-shared-memory-size", str(FRAMES.nbytes), *how]
    done = subprocess.run([*analyzer, *options], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(count) for count in re.findall(r"Successful request count: (\d+)", done.stdout)]
    assert len(counts) == 2, done.stdout
    assert min(counts) > 0
    assert "failed" not in done.stdout.lower()


def pictures() -> Any:
    from hypothesis import strategies

    def encoded(kind: str) -> bytes:
        file = io.BytesIO()
        Image.fromarray(FRAMES[0]).save(file, kind)
        return file.getvalue()

    return {kind: strategies.just(encoded(kind)) for kind in ("JPEG", "PNG", "WEBP", "BMP")}


def binary_requests() -> Any:
    """JSON alone is an octet stream, too, where no tensor follows it."""
    from hypothesis import strategies

    tensor = {"name": "frame", "datatype": "UINT8", "shape": FRAMES.shape, "data": FRAMES.ravel().tolist()}
    return strategies.just(json.dumps({"inputs": [tensor]}).encode())


def test_the_document_is_true(doors: Doors) -> None:
    """Schemathesis: whatever the document allows is answered as it says, whatever it forbids is refused."""
    from hypothesis import HealthCheck, given, settings

    for kind, made in pictures().items():
        schemathesis.openapi.media_type(f"image/{kind.lower()}", made)
    schemathesis.openapi.media_type("application/octet-stream", binary_requests())
    schema = schemathesis.openapi.from_url(f"http://{doors.http}/openapi.json")
    seen = 0
    for operation in schema.get_all_operations():
        found = operation.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode == schemathesis.GenerationMode.NEGATIVE and not found.body:
                continue
            seen += 1

            @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=found.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                case.call_and_validate(timeout=WAIT_S)

            check()
    assert seen > 20
