"""A model as ONNX, whose gradient PyTorch can follow: ONNX as it is, TFLite through tf2onnx."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnx import ModelProto

from edgemask.auditing.twin import NoTwin
from edgemask.conversion import read_as
from edgemask.errors import UserError
from edgemask.models import Model
from edgemask.models.onnx import OnnxModel

_QUANTISED = "QuantizeLinear"


def as_onnx(model: Model) -> OnnxModel:
    """The model, converted in a child and checked against its engine if need be; NoTwin when there is no way."""
    if isinstance(model, OnnxModel):
        return model
    with tempfile.TemporaryDirectory(prefix="edgemask-") as folder:
        copy = Path(folder) / f"model.{model.format}"
        copy.write_bytes(model.data)
        try:
            made = read_as(copy, "onnx")
        except UserError as error:
            reason = error.message.replace(str(copy), model.path.name)
            hint = f" ({error.hint})" if error.hint else ""
            raise NoTwin(f"{model.path.name} does not become ONNX: {reason}{hint}") from error
    if not isinstance(made, OnnxModel) or (made.origin.converted and made.origin.converted.transposed):
        raise NoTwin(f"{model.path.name} becomes ONNX with other axes: its chain does not fit")
    return made


def is_quantised(proto: ModelProto) -> bool:
    """Whether values are rounded to integers inside, which the twin passes the gradient straight through."""
    return any(node.op_type == _QUANTISED for node in proto.graph.node)
