"""Loading and unloading over HTTP and gRPC, of real workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest

from edgemask_runtime.api.opening import control_of, open_door
from edgemask_runtime.api.repository import Installed
from edgemask_runtime.settings import DoorSettings
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.worker_process import ModelOptions

from .serving import WAIT_S, serving
from .test_api_models import BODY
from .test_grpc import field, fields
from .tiny import MakeBundle


def until(condition: Callable[[], Any]) -> Any:
    """Ask again until it is so."""
    end_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return found


def states(client: httpx.Client) -> dict[str, str]:
    return {each["name"]: each["state"] for each in client.post("/v2/repository/index").json()}


def test_models_are_loaded_and_unloaded_by_name(make_bundle: MakeBundle) -> None:
    bundles = {"one": make_bundle(), "two": make_bundle(noisy=True)}
    options = [ModelOptions(name, path) for name, path in bundles.items()]
    with Supervisor(options) as running, serving(running.models, Installed(running)) as client:
        assert states(client) == {"one": "READY", "two": "READY"}
        client.post("/v2/repository/models/one/unload").raise_for_status()
        assert states(client) == {"one": "UNAVAILABLE", "two": "READY"}
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/models/one/ready").status_code == 503
        refused = client.post("/v2/models/one/infer", content=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.post("/v2/models/two/infer", content=BODY).status_code == 200
        client.post("/v2/repository/models/one/load", json={}).raise_for_status()
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post("/v2/models/one/infer", content=BODY).status_code == 200
        for name in ("three", "..", "/etc/passwd", str(bundles["one"])):
            path = f"/v2/repository/models/{name.replace('/', '%2F')}/load"
            assert client.post(path).status_code in (400, 404)
        config = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
        assert client.post("/v2/repository/models/one/load", json=config).status_code == 400


def test_a_worker_that_dies_is_missed_alone_and_comes_back(make_bundle: MakeBundle) -> None:
    options = [ModelOptions(name, make_bundle()) for name in ("one", "two")]
    with Supervisor(options) as running, serving(running.models, Installed(running)) as client:
        before = running.models["one"].process_id
        assert before
        os.kill(before, signal.SIGKILL)
        until(lambda: running.models["one"].process_id != before)
        assert client.post("/v2/models/two/infer", content=BODY).status_code == 200
        until(lambda: client.get("/v2/health/ready").status_code == 200)
        assert client.post("/v2/models/one/infer", content=BODY).status_code == 200
        assert running.models["one"].restarts == 1


def test_the_same_over_grpc(make_bundle: MakeBundle) -> None:
    with Supervisor([ModelOptions("one", make_bundle())]) as running:
        server = open_door("grpc", control_of(running.models, Installed(running)), DoorSettings("127.0.0.1:0"))
        try:
            with grpc.insecure_channel(server.url.removeprefix("grpc://")) as channel:

                def call(method: str, request: bytes = b"") -> bytes:
                    done: bytes = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(
                        request, timeout=WAIT_S
                    )
                    return done

                call("RepositoryModelUnload", field(2, "one"))
                assert dict(fields(dict(fields(call("RepositoryIndex")))[1]))[3] == b"UNAVAILABLE"
                assert fields(call("ModelReady", field(1, "one"))) == []
                call("RepositoryModelLoad", field(2, "one"))
                assert fields(call("ModelReady", field(1, "one"))) == [(1, 1)]
                with pytest.raises(grpc.RpcError, match="unknown model 'two'"):
                    call("RepositoryModelLoad", field(2, "two"))
        finally:
            server.close()
