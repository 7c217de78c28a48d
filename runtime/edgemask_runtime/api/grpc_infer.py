"""An infer request over gRPC, checked, and its response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemask_runtime.about import Outputs
from edgemask_runtime.api.doors import Door, version_of
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.grpc_messages import CLASSES
from edgemask_runtime.api.oip import (
    DATATYPES,
    InferRequest,
    WantedOutput,
    binary_of,
    check_input,
    check_parameters,
    check_shape,
    from_binary,
    from_region,
    known_output,
    place_of,
)
from edgemask_runtime.api.regions import Regions
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest

CHOICE = "parameter_choice"


def decode_grpc(message: Any, manifest: Manifest, regions: Regions | None) -> InferRequest:
    """Check a request and take out its frames; RequestError says what is wrong with it."""
    check_parameters(message.parameters)
    inputs = list(message.inputs)
    check_input([tensor.name for tensor in inputs], inputs[0].datatype if inputs else None, manifest.frame)
    frames = _frames(message, inputs[0], manifest, regions)
    wanted = tuple(_wanted(output, manifest, regions) for output in message.outputs)
    if len({output.name for output in wanted}) < len(wanted):
        raise RequestError(400, "the outputs name one twice")
    every = tuple(WantedOutput(record.name, binary=True) for record in manifest.outputs)
    return InferRequest(message.id, frames, wanted or every)


def encode_grpc(request: InferRequest, outputs: Outputs, door: Door, regions: Regions | None) -> Any:
    """Write the outputs that were asked for, as bytes or into shared memory."""
    response = CLASSES["ModelInferResponse"](model_name=door.name, model_version=version_of(outputs.about))
    response.id = request.request_id or ""
    for wanted in request.outputs:
        array = outputs[wanted.name]
        response.outputs.add(name=wanted.name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        if wanted.place and regions:
            regions.write(wanted.place, binary_of(array))
        # Why bytes of an output in shared memory, too: clients count outputs to find theirs; none are in it.
        response.raw_output_contents.append(b"" if wanted.place else bytes(binary_of(array)))
    return response


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain values."""
    return {name: getattr(value, value.WhichOneof(CHOICE) or "", None) for name, value in parameters.items()}


def _frames(message: Any, tensor: Any, manifest: Manifest, regions: Regions | None) -> Pixels:
    shape = tuple(tensor.shape)
    check_shape(shape or (0,), manifest.frame)
    parameters = values_of(tensor.parameters)
    check_parameters(parameters)
    place, parts = place_of(parameters, regions), len(message.raw_input_contents)
    numbers = tensor.contents.uint_contents
    if parts > 1 or bool(place) + bool(parts) + bool(numbers) != 1 or (tensor.contents.ByteSize() and not numbers):
        raise RequestError(400, "the frame comes in one way: raw_input_contents, uint_contents or shared memory")
    if place and regions:
        return from_region(place, shape, regions)
    return from_binary(message.raw_input_contents[0] if parts else _bytes_of(numbers), shape)


def _bytes_of(numbers: Any) -> bytes:
    try:
        return bytes(numbers)
    except ValueError as error:
        raise RequestError(400, "uint_contents must hold whole numbers from 0 to 255") from error


def _wanted(output: Any, manifest: Manifest, regions: Regions | None) -> WantedOutput:
    parameters = values_of(output.parameters)
    check_parameters(parameters)
    return WantedOutput(known_output(output.name, manifest), True, place_of(parameters, regions))
