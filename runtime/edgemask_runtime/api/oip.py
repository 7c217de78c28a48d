"""Open Inference Protocol v2: a request's frames and wishes, whatever carries them, and a response over HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.regions import MAX_OFFSET, Place, Regions
from edgemask_runtime.engines.tensors import Array
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import FrameInput, Manifest

HEADER_LENGTH = "inference-header-content-length"
DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
MAX_HEADER_BYTES = 1 << 16
MAX_BATCH = 64
MAX_BATCH_BYTES = 4 << 20
# "255, " in JSON.
JSON_BYTES_PER_VALUE = 6
GAP_CHARS = 64
SECRET = re.compile("entropy|key", re.IGNORECASE)

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class WantedOutput:
    """An output that the client asked for: as a binary part, in shared memory, or as JSON."""

    name: str
    binary: bool
    place: Place | None = None


@dataclass(frozen=True)
class InferRequest:
    """A checked request: the frames, uint8 [N, *shape], and the outputs wanted."""

    request_id: str | None
    frames: Pixels
    outputs: tuple[WantedOutput, ...]


@dataclass(frozen=True)
class InferResponse:
    """The body in parts, and the length of its JSON where binary parts follow."""

    parts: list[Buffer]
    header_length: int | None


def batch_limit(frame: FrameInput) -> int:
    """Return how many frames one request may carry."""
    return frame.batch or max(1, min(MAX_BATCH, MAX_BATCH_BYTES // math.prod(frame.shape)))


def body_limit(frame: FrameInput, *, binary: bool) -> int:
    """Return how many bytes a request's body may have."""
    values = batch_limit(frame) * math.prod(frame.shape)
    return MAX_HEADER_BYTES + values * (1 if binary else JSON_BYTES_PER_VALUE)


def decode(body: Buffer, header_length: str | None, manifest: Manifest, regions: Regions | None = None) -> InferRequest:
    """Check a request and take out its frames; RequestError says what is wrong with it."""
    view = memoryview(body)
    split = len(view) if header_length is None else _split_at(header_length, len(view))
    request = as_object(parsed(view[:split]), "the request")
    suspect = lists_flags(bytes(view[:split]))
    frames = _frames(request, view[split:], manifest.frame, regions, suspect)
    request_id = request.get("id")
    if not isinstance(request_id, str | None):
        raise RequestError(400, "'id' must be a string")
    return InferRequest(request_id, frames, _wanted(request, manifest, regions))


def encode(
    request: InferRequest, outputs: Mapping[str, Array], described: dict[str, Any], regions: Regions | None = None
) -> InferResponse:
    """Write the outputs that were asked for; `described` is what the response says of the model."""
    entries: list[dict[str, Any]] = []
    parts: list[Buffer] = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        entry: dict[str, Any] = {"name": wanted.name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        # Why no parameters for an output in shared memory: Triton's clients take them for a binary part.
        if wanted.place and regions:
            regions.write(wanted.place, binary_of(array))
        elif wanted.binary:
            parts.append(binary_of(array))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = np.ascontiguousarray(array).reshape(-1)
        entries.append(entry)
    header = described | ({"id": request.request_id} if request.request_id is not None else {}) | {"outputs": entries}
    text = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)
    return InferResponse([text, *parts], len(text) if parts else None)


def binary_of(array: Array) -> memoryview:
    """The values' bytes, row by row, little end first."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data


def check_shape(shape: tuple[int, ...], frame: FrameInput) -> None:
    """Refuse what is no batch of frames."""
    batches = range(frame.batch or 1, batch_limit(frame) + 1)
    if shape[1:] != frame.shape or shape[0] not in batches:
        rows = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
        expected = f"[{rows}, {', '.join(map(str, frame.shape))}]"
        raise RequestError(400, f"{frame.name!r} takes shape {expected}, not {list(shape)}")


def check_input(names: list[Any], datatype: Any, frame: FrameInput) -> None:
    """Refuse any input but the frame: entropy and key are the runtime's own."""
    if names != [frame.name]:
        raise RequestError(400, f"the only input is {frame.name!r}; the request has {names}")
    if datatype != "UINT8":
        raise RequestError(400, f"{frame.name!r} takes datatype UINT8, not {datatype!r}")


def check_parameters(names: Mapping[str, Any]) -> None:
    """Refuse parameters that would fill what only the runtime fills, and a classification."""
    secret = next((name for name in names if SECRET.fullmatch(name)), None)
    if secret is not None:
        raise RequestError(400, f"{secret!r} is filled by the runtime alone")
    if "classification" in names:
        raise RequestError(400, "the classification extension is not spoken; ask for the tensors")


def place_of(parameters: Mapping[str, Any], regions: Regions | None) -> Place | None:
    """Where in shared memory a tensor lies, if its parameters say so."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    if regions is None:
        raise RequestError(400, "shared memory is for clients of this machine; send the tensor")
    size, offset = parameters.get("shared_memory_byte_size"), parameters.get("shared_memory_offset", 0)
    size, offset = whole(size), whole(offset)
    if not isinstance(region, str) or not (_is_size(size) and _is_size(offset)):
        raise RequestError(400, "shared memory takes a region's name and whole numbers of bytes")
    return Place(region, int(offset), int(size))


def from_region(place: Place, shape: tuple[int, ...], regions: Regions) -> Pixels:
    """The frames that lie in shared memory."""
    if place.size != math.prod(shape):
        raise RequestError(400, f"{list(shape)} takes {math.prod(shape)} bytes; {place.size} are in shared memory")
    return regions.read(place).reshape(shape)


def from_binary(binary: Buffer, shape: tuple[int, ...]) -> Pixels:
    """The frames that were sent as bytes."""
    if len(binary) != math.prod(shape):
        raise RequestError(400, f"{list(shape)} takes {math.prod(shape)} binary bytes; {len(binary)} were sent")
    return np.frombuffer(binary, np.uint8).reshape(shape)


def known_output(name: Any, manifest: Manifest) -> str:
    """The output of that name; RequestError when there is none."""
    known = [record.name for record in manifest.outputs]
    if name not in known:
        raise RequestError(400, f"unknown output {name!r}; there are {known}")
    return str(name)


def parsed(text: Buffer) -> Any:
    """JSON; RequestError when it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the request is not valid JSON: {error}") from error


def as_object(value: Any, what: str) -> dict[str, Any]:
    """The value, if it is an object."""
    if not isinstance(value, dict):
        raise RequestError(400, f"{what} must be a JSON object")
    return value


def _split_at(header_length: str, body_bytes: int) -> int:
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= 10):
        raise RequestError(400, "Inference-Header-Content-Length must be a whole number")
    if int(header_length) > body_bytes:
        raise RequestError(400, f"Inference-Header-Content-Length is {header_length}, the body has {body_bytes} bytes")
    return int(header_length)


def whole(value: Any) -> Any:
    """A whole number as JSON knows it, where 1.0 is one, as an int; None for anything else."""
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return int(value) if is_whole else None


def _is_size(value: int | None) -> bool:
    return value is not None and 0 <= value <= MAX_OFFSET


def _objects(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise RequestError(400, f"{what} must be a list")
    return [as_object(entry, f"an entry of {what}") for entry in value]


def _frames(
    request: dict[str, Any], binary: memoryview, frame: FrameInput, regions: Regions | None, suspect: bool
) -> Pixels:
    inputs = _objects(request.get("inputs"), "'inputs'")
    check_input([entry.get("name") for entry in inputs], inputs[0].get("datatype") if inputs else None, frame)
    shape = _shape(inputs[0].get("shape"), frame)
    parameters = as_object(inputs[0].get("parameters", {}), "'parameters'")
    check_parameters(parameters)
    place, size = place_of(parameters, regions), parameters.get("binary_data_size")
    if place is None and size is None:
        return _from_json(inputs[0].get("data"), shape, len(binary), suspect)
    if "data" in inputs[0] or (size is not None and (size != len(binary) or place)) or (place and len(binary)):
        raise RequestError(
            400, f"{size} binary bytes are announced, {len(binary)} sent; a tensor comes in one way only"
        )
    return from_region(place, shape, regions) if place and regions else from_binary(binary, shape)


def _shape(shape: Any, frame: FrameInput) -> tuple[int, ...]:
    sizes = tuple(map(whole, shape)) if isinstance(shape, list) else (None,)
    if None in sizes:
        raise RequestError(400, "'shape' must be a list of whole numbers")
    check_shape(sizes or (0,), frame)
    return sizes


def _from_json(data: Any, shape: tuple[int, ...], binary_bytes: int, suspect: bool) -> Pixels:
    if not isinstance(data, list) or binary_bytes:
        raise RequestError(400, "an input has either 'data', a list, or 'binary_data_size' and that many bytes")
    try:
        values = _slowly(data, shape) if suspect else bytearray(_flat(data, len(shape)))
    except TypeError:
        values = _slowly(data, shape)
    except ValueError:
        values = bytearray()
    if len(values) != math.prod(shape):
        raise RequestError(400, f"'data' must hold {math.prod(shape)} whole numbers from 0 to 255")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _slowly(data: list[Any], shape: tuple[int, ...]) -> bytearray:
    """The numbers, each looked at; nothing if one of them is none.

    Why not always: it takes as long as all else, and only true, false, 1.0 and what is wrong need it.
    """
    try:
        return bytearray(map(whole, _flat(data, len(shape))))
    except (TypeError, ValueError):
        return bytearray()


def _flat(data: list[Any], levels: int) -> Iterable[Any]:
    """The numbers of a list of lists, as deep as the shape is long at most."""
    flat: Iterable[Any] = data
    while levels > 1 and isinstance(data, list) and data and isinstance(data[0], list):
        flat, data, levels = chain.from_iterable(flat), data[0], levels - 1
    return flat


def lists_flags(text: bytes) -> bool:
    """Whether true or false may stand in a list of this JSON: Python takes them for 1 and 0."""
    for word in (b"true", b"false"):
        at = text.find(word)
        while at >= 0:
            if text[max(0, at - GAP_CHARS) : at].rstrip()[-1:] in (b"[", b",", b""):
                return True
            at = text.find(word, at + 1)
    return False


def _wanted(request: dict[str, Any], manifest: Manifest, regions: Regions | None) -> tuple[WantedOutput, ...]:
    parameters = as_object(request.get("parameters", {}), "'parameters'")
    check_parameters(parameters)
    default = _flag(parameters, "binary_data_output", False)
    if "outputs" not in request:
        return tuple(WantedOutput(record.name, default) for record in manifest.outputs)
    entries = _objects(request["outputs"], "'outputs'")
    names = [known_output(entry.get("name"), manifest) for entry in entries]
    if len(set(names)) < len(names):
        raise RequestError(400, f"'outputs' names one of {names} twice")
    return tuple(_wanted_one(entry, default, regions) for entry in entries)


def _wanted_one(entry: dict[str, Any], default: bool, regions: Regions | None) -> WantedOutput:
    parameters = as_object(entry.get("parameters", {}), "'parameters'")
    check_parameters(parameters)
    place = place_of(parameters, regions)
    return WantedOutput(str(entry["name"]), _flag(parameters, "binary_data", default), place)


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(400, f"parameter {name!r} must be true or false")
    return value
