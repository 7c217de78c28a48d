"""The OpenAPI document of what is served here, made of the models that are loaded."""

from __future__ import annotations

import math
from typing import Any

from edgemask_runtime import __version__
from edgemask_runtime.api.control import LOG_SETTINGS, TRACE_SETTINGS, Control
from edgemask_runtime.api.doors import Door
from edgemask_runtime.api.oip import HEADER_LENGTH, batch_limit
from edgemask_runtime.api.regions import KEY, MAX_NAME_CHARS, MAX_OFFSET
from edgemask_runtime.manifest import FrameInput

Schema = dict[str, Any]

OPENAPI = "3.1.0"
REASONS = {
    400: "the request is wrong; `error` says where",
    401: "the token is missing or wrong",
    403: "another site's page asks, or clients may not do this here",
    404: "no such model or version",
    408: "the request did not arrive in time",
    413: "the body is larger than the model's frames take",
    415: "bodies of this kind are not read",
    500: "the model fails on this input",
    503: "the model is being started again, or too many requests wait",
}


def document(control: Control) -> Schema:
    """The document, in OpenAPI 3.1."""
    doors = control.doors.all()
    paths = {**_server_paths(), **_settings_paths(), **_repository_paths(control)}
    paths |= _shared_paths() if control.regions else {}
    for door in doors:
        paths |= _model_paths(door)
    return {
        "openapi": OPENAPI,
        "info": {"title": "edgemaskd", "version": __version__, "description": "Open Inference Protocol v2"},
        "paths": paths,
        "components": {"schemas": {"Error": _object({"error": {"type": "string"}})}},
    }


def _object(properties: Schema, *, required: list[str] | None = None, closed: bool = True) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    schema["required"] = list(properties) if required is None else required
    return schema | ({"additionalProperties": False} if closed else {})


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _constant(value: Any) -> Schema:
    return {"const": value}


def _answer(schema: Schema, *refusals: int, also: int | None = None, **request: Any) -> Schema:
    """An operation that answers this, or refuses; `also` is a second status with the same document."""
    content = {"application/json": {"schema": schema}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: Schema = {"200": {"description": "the answer", "content": content}}
    for status in (401, 403, *refusals):
        responses[str(status)] = {"description": REASONS[status], "content": error}
    if also is not None:
        responses[str(also)] = {"description": "the answer is no", "content": content}
    return {"responses": responses, **request}


def _get(schema: Schema, *refusals: int, also: int | None = None) -> Schema:
    return {"get": _answer(schema, *refusals, also=also)}


def _post(schema: Schema, body: Schema | None, *refusals: int, parameters: tuple[Schema, ...] = ()) -> Schema:
    request: Schema = {"parameters": list(parameters)} if parameters else {}
    if body is not None:
        required = bool(body.get("required"))
        request["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
    return {"post": _answer(schema, 400, 413, *refusals, **request)}


def _server_paths() -> Schema:
    text = {"type": "string"}
    return {
        "/v2": _get(_object({"name": text, "version": text, "extensions": _list(text)})),
        "/v2/health/live": _get(_object({"live": {"type": "boolean"}}, closed=False), also=503),
        "/v2/health/ready": _get(_object({"ready": {"type": "boolean"}}), also=503),
        "/v2/models/stats": _get(_object({"model_stats": _list({"type": "object"})})),
        "/openapi.json": _get({"type": "object"}),
    }


def _settings_paths() -> Schema:
    trace = _object({name: _constant(value) for name, value in TRACE_SETTINGS.items()})
    logged = _object({name: _constant(value) for name, value in LOG_SETTINGS.items()})
    return {"/v2/trace/setting": _get(trace), "/v2/logging": _get(logged)}


def _repository_paths(control: Control) -> Schema:
    text = {"type": "string"}
    entry = _object({"name": text, "version": text, "state": text, "reason": text})
    ready_only = _object({"ready": {"type": "boolean"}}, required=[], closed=False)
    paths = {"/v2/repository/index": _post(_list(entry), ready_only)}
    if control.repository is not None:
        flag = _object({"unload_dependents": {"type": "boolean"}}, required=[])
        request = _object({"parameters": flag}, required=[], closed=False)
        for action in ("load", "unload"):
            path = f"/v2/repository/models/{{name}}/{action}"
            paths[path] = _post(_object({}), request, parameters=(_in_path("name", text),))
    return paths


def _shared_paths() -> Schema:
    key = {"type": "string", "pattern": f"^{KEY.pattern}$"}
    described = {"key": key, "offset": _whole(0, MAX_OFFSET), "byte_size": _whole(1, MAX_OFFSET)}
    status = _list(_object({"name": {"type": "string"}, **described}))
    region = _object(described, required=["key", "byte_size"], closed=False)
    name = (_in_path("name", {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": "^[^/]+$"}),)
    base = "/v2/systemsharedmemory"
    of_one = {"get": _answer(status, 400, 404, parameters=list(name))}
    return {
        f"{base}/status": _get(status),
        f"{base}/region/{{name}}/status": of_one,
        f"{base}/region/{{name}}/register": _post(_object({}), region, 404, parameters=name),
        f"{base}/region/{{name}}/unregister": _post(_object({}), None, parameters=name),
        f"{base}/unregister": _post(_object({}), None),
    }


def _model_paths(door: Door) -> Schema:
    base = f"/v2/models/{door.name}"
    metadata, config = door.metadata(), door.config()
    paths: Schema = {}
    for at in (base, f"{base}/versions/{door.version}"):
        paths |= {
            at: _get(_object({name: _constant(value) for name, value in metadata.items()}), 404),
            f"{at}/ready": _get(_object({"name": _constant(door.name), "ready": {"type": "boolean"}}), 404, also=503),
            f"{at}/config": _get(_object({name: _constant(value) for name, value in config.items()}), 404),
            f"{at}/stats": _get(_object({"model_stats": _list({"type": "object"})}), 404),
            f"{at}/infer": {"post": _infer(door)},
        }
    return paths


def _infer(door: Door) -> Schema:
    parts = f"the JSON, as many bytes as the header {HEADER_LENGTH} states, then the tensors' bytes"
    content = {
        "application/json": {"schema": _infer_request(door)},
        "application/octet-stream": {"schema": {"description": parts}},
        **{f"image/{kind}": {"schema": {"description": "one image"}} for kind in ("jpeg", "png", "webp", "bmp")},
    }
    request = {"required": True, "content": content}
    operation = _answer(_infer_response(door), 400, 404, 413, 415, 500, 503, requestBody=request)
    operation["responses"]["200"]["content"]["application/octet-stream"] = {"schema": {}}
    return operation


def _infer_request(door: Door) -> Schema:
    manifest = door.about.manifest
    output = _object({"name": {"enum": [record.name for record in manifest.outputs]}}, closed=False)
    return _object(
        {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": _list(_frame_tensor(manifest.frame), minItems=1, maxItems=1),
            "outputs": _list(output, maxItems=len(manifest.outputs)),
        },
        required=["inputs"],
        closed=False,
    )


def _frame_tensor(frame: FrameInput) -> Schema:
    """The frame as JSON, with as many values as the batch it states."""
    size, rows = math.prod(frame.shape), range(frame.batch or 1, batch_limit(frame) + 1)
    named = {"name": _constant(frame.name), "datatype": _constant("UINT8")}
    return {
        "anyOf": [
            _object(
                {
                    **named,
                    "shape": _constant([row, *frame.shape]),
                    "data": _list(_whole(0, 255), minItems=row * size, maxItems=row * size),
                },
                closed=False,
            )
            for row in rows
        ]
    }


def _infer_response(door: Door) -> Schema:
    text = {"type": "string"}
    tensor = {"name": text, "datatype": text, "shape": _list({"type": "integer"})}
    optional = {"data": {"type": "array"}, "parameters": {"type": "object"}}
    described = {"model_name": _constant(door.name), "model_version": text, "id": text}
    outputs = _list(_object({**tensor, **optional}, required=list(tensor)))
    return _object({**described, "outputs": outputs}, required=["model_name", "model_version", "outputs"])


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}
