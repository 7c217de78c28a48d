"""GRPCInferenceService: the Open Inference Protocol over gRPC, on the models that HTTP serves too."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import BoundedSemaphore
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from edgemask_runtime.api import control as shared
from edgemask_runtime.api.access import Access, Tls
from edgemask_runtime.api.control import Control
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.grpc_infer import decode_grpc, encode_grpc
from edgemask_runtime.api.grpc_messages import CLASSES, SERVICE
from edgemask_runtime.api.guard import Guard
from edgemask_runtime.errors import UserError

THREADS = 24
THREADS_PER_MODEL = 16
MAX_STREAMS = 4
MAX_CALLS = 128
MAX_MESSAGE_BYTES = 32 << 20
GRACE_S = 3
OPTIONS = {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": -1,
    # Why not: a second daemon could bind the port, and every other client would be its.
    "grpc.so_reuseport": 0,
}
STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}

log = logging.getLogger("edgemaskd")

Answer = Callable[[Any], dict[str, Any]]


class Service:
    """The calls, each a request to a document that becomes the response, and infer."""

    def __init__(self, control: Control, guard: Guard) -> None:
        self._control, self._guard = control, guard
        self._places: dict[str, BoundedSemaphore] = {}
        self._streams = BoundedSemaphore(MAX_STREAMS)

    def handler(self) -> Any:
        """The calls as gRPC takes them."""
        methods = {name: self._unary(name, answer) for name, answer in self._answers().items()}
        methods["ModelInfer"] = _method(self._guarded(self._infer), "ModelInferRequest")
        stream = grpc.stream_stream_rpc_method_handler
        methods["ModelStreamInfer"] = _method(self._stream, "ModelInferRequest", stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _answers(self) -> dict[str, Answer]:
        control = self._control
        doors = control.doors
        return {
            "ServerLive": lambda _: {"live": control.alarm() is None},
            "ServerReady": lambda _: {"ready": all(door.is_ready for door in doors.all())},
            "ServerMetadata": lambda _: shared.server_metadata(control),
            "ModelReady": lambda request: {"ready": doors.find(request.name, request.version).is_ready},
            "ModelMetadata": lambda request: doors.find(request.name, request.version).metadata(),
            "ModelConfig": lambda request: {"config": doors.find(request.name, request.version).config()},
            "ModelStatistics": self._statistics,
            "RepositoryIndex": lambda request: {"models": shared.index(control, request.ready)},
            "RepositoryModelLoad": lambda request: self._change(request, shared.load),
            "RepositoryModelUnload": lambda request: self._change(request, shared.unload),
            "SystemSharedMemoryStatus": self._regions,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
            "CudaSharedMemoryStatus": lambda _: {},
            "CudaSharedMemoryRegister": _refuse(400, shared.NO_CUDA),
            "CudaSharedMemoryUnregister": lambda _: {},
            "TraceSetting": lambda request: _settings(request, shared.TRACE_SETTINGS, _trace_value),
            "LogSettings": lambda request: _settings(request, shared.LOG_SETTINGS, _log_value),
        }

    def _statistics(self, request: Any) -> dict[str, Any]:
        doors = self._control.doors
        asked = [doors.find(request.name, request.version)] if request.name else doors.all()
        return {"model_stats": [door.stats() for door in asked]}

    def _change(self, request: Any, change: Callable[[Control, str], None]) -> dict[str, Any]:
        if request.repository_name:
            raise RequestError(400, "there is one repository, and it has no name")
        shared.check_load({"parameters": dict(request.parameters)})
        change(self._control, request.model_name)
        return {}

    def _regions(self, request: Any) -> dict[str, Any]:
        found = shared.regions(self._control).status(request.name or None)
        return {"regions": {region.name: region.to_dict() for region in found}}

    def _register(self, request: Any) -> dict[str, Any]:
        sizes = {"offset": request.offset, "byte_size": request.byte_size}
        shared.register_region(self._control, request.name, request.key, sizes)
        return {}

    def _unregister(self, request: Any) -> dict[str, Any]:
        shared.regions(self._control).unregister(request.name or None)
        return {}

    def _infer(self, request: Any) -> Any:
        received_ns = time.perf_counter_ns()
        door, regions = self._control.doors.find(request.model_name, request.model_version), self._control.regions
        with self._place(door.name):
            return door.answer(
                lambda manifest: decode_grpc(request, manifest, regions),
                lambda checked, outputs: encode_grpc(checked, outputs, door, regions),
                received_ns,
            )

    @contextmanager
    def _place(self, name: str) -> Iterator[None]:
        """One of the threads that a model may take: one that hangs leaves some to the others."""
        places = self._places.setdefault(name, BoundedSemaphore(THREADS_PER_MODEL))
        if not places.acquire(blocking=False):
            raise RequestError(503, f"{THREADS_PER_MODEL} requests of {name} are being answered already; try again")
        try:
            yield
        finally:
            places.release()

    def _stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Answer one request after the other; one that is refused does not end the stream."""
        _check(self._guard, context)
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open already")
        try:
            for request in requests:
                yield self._streamed(request)
        finally:
            self._streams.release()

    def _streamed(self, request: Any) -> Any:
        made = CLASSES["ModelStreamInferResponse"]()
        try:
            made.infer_response.CopyFrom(self._infer(request))
        except RequestError as error:
            made.error_message = error.message
            made.infer_response.id = request.id
        return made

    def _unary(self, name: str, answer: Answer) -> Any:
        response = CLASSES[f"{name}Response"]
        return _method(self._guarded(lambda request: ParseDict(answer(request), response())), f"{name}Request")

    def _guarded(self, call: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def guarded(request: Any, context: Any) -> Any:
            _check(self._guard, context)
            try:
                return call(request)
            except RequestError as error:
                if error.status >= 500:
                    log.warning("grpc: %s", error.message)
                context.abort(STATUS.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), error.message)

        return guarded


class GrpcServer:
    """Serves the models until `close`."""

    def __init__(self, control: Control, access: Access) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._threads,
            [Service(control, access.guard).handler()],
            options=list(OPTIONS.items()),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        port = _bound(self._server, str(access.address), access.tls)
        self.url = f"grpc{'s' if access.tls else ''}://{replace(access.address, port=port)}"
        self._server.start()

    def close(self) -> None:
        """Answer what is in hand, then stop."""
        self._server.stop(GRACE_S).wait()
        self._threads.shutdown()


def _bound(server: Any, address: str, tls: Tls | None) -> int:
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        key, certificate, authority = tls.pem()
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, authority is not None)
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise UserError(f"cannot listen on {address} for gRPC", "another program may have the port") from error


def _method(call: Callable[..., Any], request: str, kind: Any = grpc.unary_unary_rpc_method_handler) -> Any:
    return kind(call, CLASSES[request].FromString, lambda message: message.SerializeToString())


def _check(guard: Guard, context: Any) -> None:
    try:
        guard.check_token(dict(context.invocation_metadata()).get("authorization", "").encode())
    except RequestError as error:
        context.abort(STATUS[error.status], error.message)


def _refuse(status: int, message: str) -> Answer:
    def refuse(_: Any) -> dict[str, Any]:
        raise RequestError(status, message)

    return refuse


def _settings(request: Any, settings: dict[str, Any], value_of: Callable[[Any], Any]) -> dict[str, Any]:
    if request.settings:
        raise RequestError(405, shared.NO_SETTINGS)
    return {"settings": {name: value_of(value) for name, value in settings.items()}}


def _trace_value(value: Any) -> dict[str, Any]:
    return {"value": value if isinstance(value, list) else [value]}


def _log_value(value: Any) -> dict[str, Any]:
    kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
    return {kind: value}
