"""Tensors into an answer: labels, scores, suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from edgemask_runtime.detections import Detection, read_detections
from edgemask_runtime.engines.tensors import Array, plain
from edgemask_runtime.labels import Guess, label_of
from edgemask_runtime.manifest import DETECTION, Manifest, OutputRole

# A raw feature map of a million values is for HTTP clients, not for a line of JSON.
MAX_LISTED_VALUES = 1000


@dataclass(frozen=True)
class Quantity:
    """A measured value in its unit, which may be empty; None when it is not finite."""

    value: float | None
    unit: str

    def __str__(self) -> str:
        return f"{'?' if self.value is None else f'{self.value:.6g}'} {self.unit}".rstrip()


@dataclass(frozen=True)
class Reading:
    """What the outputs for one frame mean: the best classes, whether it is suspicious, and the values by name.

    `detections` and `values` are None where the model finds no objects, or measures nothing; what became detections is
    not among `outputs`.
    """

    top: tuple[Guess, ...]
    suspicious: bool | None
    outputs: dict[str, Any]
    detections: tuple[Detection, ...] | None = None
    values: tuple[Quantity, ...] | None = None

    def __str__(self) -> str:
        if self.detections is not None:
            return "; ".join(map(str, self.detections)) or "nothing found"
        return ", ".join(map(str, (*self.top, *(self.values or ()))))


@dataclass(frozen=True)
class Answer:
    """A frame's answer: its age when it was given, the inference's latency, and the frames dropped so far.

    `captured_ns` is monotonic, `captured_at` the same moment in UTC; `digest` is the bundle's that answered.
    """

    pipeline: str
    frame: int
    name: str
    captured_ns: int
    captured_at: str
    digest: str
    age_ms: float
    latency_ms: float
    dropped: int
    reading: Reading

    def flat(self) -> dict[str, Any]:
        """All of it, the reading too, as one object for orjson, which knows dataclasses: no copy of the depths."""
        own = {**vars(self), "age_ms": round(self.age_ms, 3), "latency_ms": round(self.latency_ms, 3)}
        del own["reading"]
        return own | vars(self.reading)

    def to_json(self) -> str:
        """The answer as one flat JSON object on one line."""
        return orjson.dumps(self.flat()).decode()


def read_outputs(manifest: Manifest, outputs: Mapping[str, Array], row: int = 0) -> Reading:
    """Decode row `row` of the batch as the manifest's roles say."""
    rows = {record.name: outputs[record.name][row] for record in manifest.outputs}
    found, values = read_detections(manifest, rows), _values(manifest, rows)
    told = () if found is None else (*DETECTION, "keypoints")
    listed = {record.name: _listed(rows[record.name]) for record in manifest.outputs if record.role not in told}
    return Reading(_top(manifest, rows), _suspicious(manifest, rows), listed, found, values)


def _listed(values: Array) -> Any:
    if values.size > MAX_LISTED_VALUES:
        return {"dtype": values.dtype.name, "shape": list(values.shape)}
    listed = plain(values)
    return listed if values.ndim else listed[0]


def _top(manifest: Manifest, rows: Mapping[str, Array]) -> tuple[Guess, ...]:
    indices, scores = _of_role(manifest, rows, "top-indices"), _of_role(manifest, rows, "top-scores")
    if indices is None:
        scores = _of_role(manifest, rows, "probabilities")
        indices = None if scores is None else np.argmax(scores.ravel(), keepdims=True)
        scores = None if scores is None else scores.ravel()[indices]
    if indices is None:
        return ()
    known = [None] * indices.size if scores is None else plain(scores)
    return tuple(_guess(manifest, int(index), score) for index, score in zip(indices.ravel(), known, strict=True))


def _guess(manifest: Manifest, index: int, score: float | None) -> Guess:
    return Guess(index, label_of(manifest, index), score)


def _values(manifest: Manifest, rows: Mapping[str, Array]) -> tuple[Quantity, ...] | None:
    values = _of_role(manifest, rows, "value")
    unit = next((str(step.parameters["unit"]) for step in manifest.chain if "unit" in step.parameters), "")
    return None if values is None else tuple(Quantity(value, unit) for value in plain(values))


def _suspicious(manifest: Manifest, rows: Mapping[str, Array]) -> bool | None:
    return above(rows, manifest.thresholds) if manifest.thresholds else None


def above(rows: Mapping[str, Array], thresholds: Mapping[str, float]) -> bool:
    """Whether one row's output is above its threshold; written so that NaN is."""
    return any(not float(np.max(rows[name])) <= limit for name, limit in thresholds.items())


def _of_role(manifest: Manifest, rows: Mapping[str, Array], role: OutputRole) -> Array | None:
    return next((rows[record.name] for record in manifest.outputs if record.role == role), None)
