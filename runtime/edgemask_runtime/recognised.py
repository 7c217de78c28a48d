"""The outputs of a recogniser among those of the detector in front of it, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgemask_runtime.answers import Reading, read_outputs
from edgemask_runtime.engines.tensors import Array
from edgemask_runtime.errors import UserError
from edgemask_runtime.labels import Guess
from edgemask_runtime.manifest import Manifest, OutputRecord, RecogniserRecord

PREFIX = "recognised."
BOX = f"{PREFIX}box"
NO_BOX = -1


def with_crops(outer: Manifest, inner: Manifest, record: RecogniserRecord) -> Manifest:
    """The detector's manifest with the recogniser's outputs, as clients see both."""
    batch = outer.frame.batch
    own = [OutputRecord(BOX, "int32", (batch, record.max_crops), "raw")]
    own += [
        OutputRecord(PREFIX + output.name, output.dtype, (batch, record.max_crops, *sample_shape(output)), "raw")
        for output in inner.outputs
    ]
    return replace(outer, outputs=(*outer.outputs, *own))


def sample_shape(record: OutputRecord) -> tuple[int, ...]:
    """The shape of one sample; UserError when an axis is free."""
    if None in record.shape[1:]:
        raise UserError(f"the recogniser's output {record.name!r} has a free axis", hint="export it with fixed sizes")
    return tuple(size for size in record.shape[1:] if size is not None)


def read_recognised(both: Manifest, inner: Manifest, outputs: Mapping[str, Array], row: int) -> Reading:
    """The detector's reading of row `row`, with what was recognised in its boxes; `both` is of `with_crops`."""
    detector = replace(both, outputs=tuple(o for o in both.outputs if not o.name.startswith(PREFIX)))
    reading = read_outputs(detector, outputs, row)
    places = {int(box): place for place, box in enumerate(outputs[BOX][row]) if box != NO_BOX}
    detections = tuple(
        replace(detection, recognised=_top(inner, outputs, row, places[number])) if number in places else detection
        for number, detection in enumerate(reading.detections or ())
    )
    return replace(reading, detections=detections)


def _top(inner: Manifest, outputs: Mapping[str, Array], row: int, place: int) -> tuple[Guess, ...]:
    return read_outputs(inner, {o.name: outputs[PREFIX + o.name][row] for o in inner.outputs}, place).top
