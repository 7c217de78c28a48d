"""The manifest: what a bundle says of itself, in schema 1."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from edgemask_runtime.archive import MAX_BYTES, NAME, SHA256, FileRecord
from edgemask_runtime.engines import engines_for
from edgemask_runtime.entropy import GENERATORS
from edgemask_runtime.errors import closest
from edgemask_runtime.formats import Format, problems
from edgemask_runtime.strict_json import Faults, Rule, between, matching, parse, structure

MANIFEST, EVIDENCE = "manifest.json", "evidence.json"
OutputRole = Literal[
    "raw",
    "probabilities",
    "top-scores",
    "top-indices",
    "suspicion",
    "class-map",
    "embedding",
    "value",
    "boxes",
    "scores",
    "classes",
    "count",
    "keypoints",
]
CanMessage = Literal["classification", "objects", "objects-fd"]
CAN_NEEDS: dict[CanMessage, frozenset[OutputRole]] = {
    "classification": frozenset({"probabilities", "top-indices"}),
    "objects": frozenset({"count"}),
    "objects-fd": frozenset({"count"}),
}
"""What a message on CAN tells of: one of these roles must be among the outputs."""
STANDARD_ID, EXTENDED_ID = 0x7FF, 0x1FFFFFFF
Provider = Literal["cpu", "cuda", "tensorrt"]
DETECTION: tuple[OutputRole, ...] = ("boxes", "scores", "classes", "count")


@dataclass(frozen=True)
class ConversionRecord:
    """How the trained model came into the baked file's format: the lane and its tools' versions.

    `transposed`: the axes of the source's tensor in the order in which the converted model has them, for each input
    and output whose axes moved.
    """

    lane: str
    tools: dict[str, str]
    transposed: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class PrecisionRecord:
    """How the trained model was made coarser before it was baked: `sha256` is of the model so made.

    `calibration` is the digest of the frames that its ranges were found on, `images` their number; `keep_float` names
    the nodes that were left as they were.
    """

    type: Literal["fp16", "int8"]
    sha256: str = field(metadata=matching(SHA256))
    tool: str
    calibration: str | None
    images: int
    keep_float: tuple[str, ...]


@dataclass(frozen=True)
class SourceRecord:
    """The trained model as its owner has it, and how it was converted and quantised, if it was; not in the bundle."""

    file: str
    sha256: str = field(metadata=matching(SHA256))
    converted: ConversionRecord | None
    precision: PrecisionRecord | None = None


@dataclass(frozen=True)
class ModelRecord:
    """The baked graph's file in the bundle, its format and where it came from."""

    file: str = field(metadata=matching(NAME))
    format: Literal["onnx", "tflite"]
    source: SourceRecord


@dataclass(frozen=True, kw_only=True)
class FrameInput(Format):
    """The input that a client fills: uint8 [N, *shape] in the camera's format; `batch` None is any N."""

    name: str
    dtype: Literal["uint8"]
    batch: int | None = field(metadata=between(1, 4096))

    @property
    def format(self) -> Format:
        """The format alone."""
        return Format(self.width, self.height, self.colour, self.stride, self.matrix, self.range)


@dataclass(frozen=True)
class EntropyInput:
    """The input that only the runtime fills: uint8 [N, bytes] from the named generator."""

    name: str
    bytes: int = field(metadata=between(1, MAX_BYTES))
    generator: str


@dataclass(frozen=True)
class KeyInput:
    """The key of the keyed masks: an input that only the runtime fills, or, `published`, a constant in the graph."""

    name: str
    bytes: int = field(metadata=between(1, MAX_BYTES))
    published: bool


@dataclass(frozen=True)
class StepRecord:
    """A step of the chain, its parameters, whether it cuts the gradient, and what flows after it."""

    kind: str
    role: Literal["frame", "mask", "wrap", "model", "output"]
    parameters: dict[str, Any]
    cuts: bool
    gives: str


@dataclass(frozen=True)
class OutputRecord:
    """An output of the graph and what it means; a None in `shape` is a free axis."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    role: OutputRole


@dataclass(frozen=True)
class ProofRecord:
    """What the proof found: masked, by which steps, and the tensor at which the model can be lifted out."""

    masked: bool
    cut_by: tuple[str, ...]
    lift_at: str | None


def is_offset(values: tuple[float, ...]) -> bool:
    """Whether these are shares of a box's width and height by which it may move."""
    return len(values) == 2 and all(-1 <= value <= 1 for value in values)


@dataclass(frozen=True)
class RecogniserRecord:
    """A bundle inside this one, whose model gets what this one's boxes hold.

    The best `max_crops` boxes are cropped, only those called `label` if one is stated; `margin` is the share of its
    size by which a box grows, `offset` (x, y) the shares by which it moves.
    """

    file: str = field(metadata=matching(NAME))
    label: str | None
    margin: float = field(metadata=between(0, 4))
    offset: tuple[float, ...] = field(metadata=Rule("two numbers from -1 to 1", is_offset).metadata)
    max_crops: int = field(metadata=between(1, 64))


@dataclass(frozen=True)
class CanRecord:
    """A message that the bundle may send on a CAN bus, under that identifier and once every `period_ms` at most.

    `data_id` goes into the checksum, by which a receiver knows the sender (AUTOSAR E2E).
    """

    message: CanMessage
    id: int = field(metadata=between(0, EXTENDED_ID))
    extended: bool
    data_id: int = field(metadata=between(0, 0xFFFF))
    period_ms: int = field(metadata=between(5, 10_000))


@dataclass(frozen=True)
class Manifest:
    """The truth about a bundle; nothing on the device can restate it.

    `thresholds` are keyed by the name of an output with the role `suspicion`.
    """

    schema: Literal[1]
    name: str = field(metadata=matching(NAME))
    target: str = field(metadata=matching(NAME))
    engine: str
    model: ModelRecord
    frame: FrameInput
    entropy: EntropyInput | None
    key: KeyInput | None
    chain: tuple[StepRecord, ...]
    outputs: tuple[OutputRecord, ...]
    labels: tuple[str, ...] | None
    thresholds: dict[str, float]
    max_age_ms: int = field(metadata=between(1, 3_600_000))
    proof: ProofRecord
    recogniser: RecogniserRecord | None
    tools: dict[str, str]
    files: dict[str, FileRecord]
    can: tuple[CanRecord, ...] = ()
    providers: tuple[Provider, ...] = ()

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, ASCII, a newline at the end."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "manifest.json") -> Manifest:
        """Read and check the text; one UserError names every fault as `where: $.path: value; allowed; did you mean`."""
        faults = Faults(where)
        manifest: Manifest | None = structure(cls, parse(text, where), "$", faults)
        if manifest is not None:
            _check_together(manifest, faults)
        if manifest is None or faults:
            raise faults.error("build the bundle again with `edgemask build`")
        return manifest


def payload_digest(manifest: Manifest) -> str:
    """Return the sha256 of the canonical manifest: it covers every file but evidence.json."""
    return hashlib.sha256(manifest.to_json().encode()).hexdigest()


def _check_together(manifest: Manifest, faults: Faults) -> None:
    """Check what no field can know alone."""
    _check_engine(manifest, faults)
    _check_inputs(manifest, faults)
    _check_outputs(manifest, faults)
    _check_files(manifest, faults)
    check_can(manifest.can, {output.role for output in manifest.outputs}, "$.can", faults)


def _check_engine(manifest: Manifest, faults: Faults) -> None:
    fitting = engines_for(manifest.model.format)
    if manifest.engine not in fitting:
        match = closest(manifest.engine, fitting)
        faults.add("$.engine", f"value {manifest.engine!r}", allowed=", ".join(fitting), match=match)
    if manifest.providers and manifest.model.format != "onnx":
        faults.add("$.providers", f"value {list(manifest.providers)}", allowed="none, for this engine")


def _check_inputs(manifest: Manifest, faults: Faults) -> None:
    check_frame(manifest.frame, faults)
    generator = manifest.entropy.generator if manifest.entropy else None
    if generator is not None and generator not in GENERATORS:
        match = closest(generator, GENERATORS)
        faults.add("$.entropy.generator", f"value {generator!r}", allowed=", ".join(GENERATORS), match=match)


def check_frame(frame: FrameInput, faults: Faults) -> None:
    """Check that some buffer holds such frames, and that it is stated as the toolchain records it."""
    for name, allowed in problems(frame):
        faults.add(f"$.frame.{name}", f"value {getattr(frame, name)!r}", allowed=allowed)
    if frame.format != frame.format.settled():
        faults.add("$.frame", "stride, matrix and range are not stated as they are recorded")


def _check_outputs(manifest: Manifest, faults: Faults) -> None:
    names = [output.name for output in manifest.outputs]
    suspicions = [output.name for output in manifest.outputs if output.role == "suspicion"]
    if not names or len(set(names)) < len(names):
        faults.add("$.outputs", f"names {names}", allowed="one output or more, each with a name of its own")
    for name in manifest.thresholds.keys() - set(suspicions):
        allowed = ", ".join(suspicions) or "none: no output has the role suspicion"
        faults.add(f"$.thresholds.{name}", "unknown key", allowed=allowed, match=closest(name, suspicions))
    _check_detections(manifest, faults)


def _check_detections(manifest: Manifest, faults: Faults) -> None:
    """Boxes, scores, classes and count come together, once each, and speak of the same number of rows."""
    told = [output for output in manifest.outputs if output.role in (*DETECTION, "keypoints")]
    roles = sorted(output.role for output in told)
    if told and roles not in (sorted(DETECTION), sorted((*DETECTION, "keypoints"))):
        faults.add("$.outputs", f"roles {', '.join(roles)}", allowed=f"{', '.join(DETECTION)} together, once each")
        return
    shapes = {output.role: output.shape[1:] for output in told}
    rows = shapes["scores"][0] if shapes.get("scores") else None
    fitting: dict[str, tuple[int | None, ...]] = {
        "boxes": (rows, 4),
        "scores": (rows,),
        "classes": (rows,),
        "count": (1,),
    }
    if "keypoints" in shapes:
        points = shapes["keypoints"][1] if len(shapes["keypoints"]) == 3 else None
        fitting["keypoints"] = (rows, points, 2)
    for role, shape in shapes.items():
        if shape != fitting[role]:
            faults.add("$.outputs", f"{role} of shape {shape}", allowed=f"{fitting[role]}")


def check_can(records: tuple[CanRecord, ...], roles: set[OutputRole] | None, path: str, faults: Faults) -> None:
    """Check that the messages can be told apart and, where the outputs' roles are known, that there is what to tell."""
    for index, record in enumerate(records):
        if record.id > STANDARD_ID and not record.extended:
            faults.add(f"{path}[{index}].id", f"value {record.id:#x}", allowed="0 to 0x7ff, unless extended = true")
        if roles is not None and not roles & CAN_NEEDS[record.message]:
            needed = " or ".join(sorted(CAN_NEEDS[record.message]))
            faults.add(f"{path}[{index}].message", f"value {record.message!r}", allowed=f"needs an output {needed}")
        for name in ("id", "data_id", "message"):
            if any(getattr(other, name) == getattr(record, name) for other in records[:index]):
                faults.add(
                    f"{path}[{index}].{name}", f"value {getattr(record, name)!r}", allowed="one that is not taken"
                )


def _check_files(manifest: Manifest, faults: Faults) -> None:
    for name in manifest.files:
        if not re.fullmatch(NAME, name) or name in (MANIFEST, EVIDENCE):
            faults.add(f"$.files.{name}", "not a name for a file of a bundle", allowed=f"text like {NAME}")
    named = {"$.model.file": manifest.model.file}
    named |= {"$.recogniser.file": manifest.recogniser.file} if manifest.recogniser else {}
    for path, name in named.items():
        if name not in manifest.files:
            faults.add(path, f"value {name!r}", allowed=", ".join(manifest.files))
