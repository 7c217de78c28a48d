"""JPEG, PNG and other images as a request's body: decoded, and brought into the format that the graph takes."""

from __future__ import annotations

import numpy as np

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import InferRequest, WantedOutput
from edgemask_runtime.errors import UserError
from edgemask_runtime.images import read_frame
from edgemask_runtime.manifest import Manifest

MAX_IMAGE_PIXELS = 16_000_000


def decode_picture(body: bytes, manifest: Manifest) -> InferRequest:
    """One image as a request for every output; RequestError when it is none or too large."""
    if manifest.frame.batch not in (None, 1):
        raise RequestError(415, f"this model takes {manifest.frame.batch} frames at once; send them as tensors")
    try:
        picture = read_frame(body, manifest.frame.format, max_pixels=MAX_IMAGE_PIXELS)
    except UserError as error:
        raise RequestError(400, error.message) from error
    wanted = tuple(WantedOutput(record.name, binary=False) for record in manifest.outputs)
    return InferRequest(None, picture.pixels[np.newaxis], wanted)
