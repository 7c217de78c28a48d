"""Everything but infer: health, metadata, configuration, counts, shared memory, the repository, the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgemask_runtime.api import control
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import MAX_HEADER_BYTES, as_object, parsed
from edgemask_runtime.errors import UserError
from edgemask_runtime.web import PAGE
from edgemask_runtime.web import routes as web

if TYPE_CHECKING:
    from edgemask_runtime.api.http import Api

MODEL = "/v2/models/{name}"
SHARED = "/v2/systemsharedmemory"
CUDA = "/v2/cudasharedmemory"
REPOSITORY = "/v2/repository"

Handler = Callable[["Api", Request], Awaitable[Any]]


def application(api: Api) -> Starlette:
    """The routes over this API's models."""
    handlers: dict[Any, Any] = {RequestError: _refused, UserError: _failed, HTTPException: _not_served}
    routes = [Route(path, _endpoint(api, handler), methods=[method]) for path, method, handler in ROUTES]
    made = Starlette(routes=routes, exception_handlers=handlers)
    made.router.redirect_slashes = False
    return made


async def _server(api: Api, _: Request) -> Any:
    return control.server_metadata(api.control)


async def _openapi(api: Api, _: Request) -> Any:
    # Why here: few ask for it.
    from edgemask_runtime.api.openapi import document

    return document(api.control)


async def _live(api: Api, _: Request) -> Any:
    alarm = api.control.alarm()
    return _json(503, {"live": False, "error": alarm}) if alarm else {"live": True}


async def _ready(api: Api, _: Request) -> Any:
    return _readiness({"ready": all(door.is_ready for door in api.doors.all())})


async def _model(api: Api, request: Request) -> Any:
    return api.doors.find(**request.path_params).metadata()


async def _model_ready(api: Api, request: Request) -> Any:
    door = api.doors.find(**request.path_params)
    return _readiness({"name": door.name, "ready": door.is_ready})


async def _config(api: Api, request: Request) -> Any:
    return api.doors.find(**request.path_params).config()


async def _stats(api: Api, request: Request) -> Any:
    named = request.path_params
    return {"model_stats": [door.stats() for door in ([api.doors.find(**named)] if named else api.doors.all())]}


async def _trace(api: Api, request: Request) -> Any:
    if "name" in request.path_params:
        api.doors.find(request.path_params["name"])
    return control.TRACE_SETTINGS


async def _logging(_: Api, __: Request) -> Any:
    return control.LOG_SETTINGS


async def _no_settings(_: Api, __: Request) -> Any:
    raise RequestError(405, control.NO_SETTINGS)


async def _shared_status(api: Api, request: Request) -> Any:
    return [region.to_dict() for region in control.regions(api.control).status(**request.path_params)]


async def _shared_register(api: Api, request: Request) -> Any:
    body = await _body(request)
    control.register_region(api.control, request.path_params["name"], body.get("key"), body)
    return {}


async def _shared_unregister(api: Api, request: Request) -> Any:
    control.regions(api.control).unregister(**request.path_params)
    return {}


async def _cuda_status(_: Api, __: Request) -> Any:
    return []


async def _cuda_unregister(_: Api, __: Request) -> Any:
    return {}


async def _cuda_register(_: Api, __: Request) -> Any:
    raise RequestError(400, control.NO_CUDA)


async def _index(api: Api, request: Request) -> Any:
    return control.index(api.control, (await _body(request)).get("ready", False))


async def _load(api: Api, request: Request) -> Any:
    control.check_load(await _body(request))
    await run_in_threadpool(control.load, api.control, request.path_params["name"])
    return {}


async def _unload(api: Api, request: Request) -> Any:
    control.check_load(await _body(request))
    await run_in_threadpool(control.unload, api.control, request.path_params["name"])
    return {}


def _versions(path: str, handler: Handler) -> list[tuple[str, str, Handler]]:
    """A model's document, of the version loaded or of one that is named."""
    return [(f"{MODEL}{path}", "GET", handler), (f"{MODEL}/versions/{{version}}{path}", "GET", handler)]


# Why this order: a model may be called `stats`, but all models' counts are asked for at that place.
ROUTES: list[tuple[str, str, Handler]] = [
    *((path, "GET", web.page) for path in PAGE),
    ("/status", "GET", web.status),
    ("/metrics", "GET", web.metrics),
    ("/pipelines/{name}/live", "GET", web.live),
    ("/openapi.json", "GET", _openapi),
    ("/v2", "GET", _server),
    ("/v2/health/live", "GET", _live),
    ("/v2/health/ready", "GET", _ready),
    ("/v2/models/stats", "GET", _stats),
    *_versions("", _model),
    *_versions("/ready", _model_ready),
    *_versions("/config", _config),
    *_versions("/stats", _stats),
    *((path, "GET", _trace) for path in ("/v2/trace/setting", f"{MODEL}/trace/setting")),
    *((path, "POST", _no_settings) for path in ("/v2/trace/setting", f"{MODEL}/trace/setting", "/v2/logging")),
    ("/v2/logging", "GET", _logging),
    *((f"{SHARED}{region}/status", "GET", _shared_status) for region in ("", "/region/{name}")),
    (f"{SHARED}/region/{{name}}/register", "POST", _shared_register),
    *((f"{SHARED}{region}/unregister", "POST", _shared_unregister) for region in ("", "/region/{name}")),
    *((f"{CUDA}{region}/status", "GET", _cuda_status) for region in ("", "/region/{name}")),
    (f"{CUDA}/region/{{name}}/register", "POST", _cuda_register),
    *((f"{CUDA}{region}/unregister", "POST", _cuda_unregister) for region in ("", "/region/{name}")),
    (f"{REPOSITORY}/index", "POST", _index),
    (f"{REPOSITORY}/models/{{name}}/load", "POST", _load),
    (f"{REPOSITORY}/models/{{name}}/unload", "POST", _unload),
]


def _endpoint(api: Api, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        answer = await handler(api, request)
        return answer if isinstance(answer, Response) else _json(200, answer)

    return endpoint


async def _body(request: Request) -> dict[str, Any]:
    from edgemask_runtime.api.http import read_body

    body = await read_body(request.receive, MAX_HEADER_BYTES)
    return as_object(parsed(body), "the request") if body else {}


def _readiness(document: dict[str, Any]) -> Response:
    return _json(200 if document["ready"] else 503, document)


def _json(status: int, document: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


async def _refused(_: Request, error: RequestError) -> Response:
    headers = {"allow": "GET"} if error.status == 405 else None
    return _json(error.status, {"error": error.message}, headers)


async def _failed(_: Request, error: UserError) -> Response:
    return _json(500, {"error": error.message})


async def _not_served(request: Request, error: HTTPException) -> Response:
    reason = f"nothing at {request.url.path[:200]!r}; see /openapi.json" if error.status_code == 404 else error.detail
    return _json(error.status_code, {"error": reason}, dict(error.headers or {}))
