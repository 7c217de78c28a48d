"""The recipe: edgemask.toml as frozen dataclasses; every fault is reported at once."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tomllib

from edgemask.auditing.policy import PolicyEntry
from edgemask.errors import Faults, Rule, UserError, closest, structure
from edgemask.model_input import Layout
from edgemask.models import Format as ModelFormat
from edgemask.params import param
from edgemask.quantisation.options import PrecisionEntry
from edgemask.steps import Map, Output, Rewrite, Role, Step, Wrap, kinds_of, registry
from edgemask_runtime.archive import NAME
from edgemask_runtime.files import read_bytes
from edgemask_runtime.formats import Format, problems
from edgemask_runtime.manifest import EXTENDED_ID, CanMessage, CanRecord, Provider, check_can, is_offset
from edgemask_runtime.strict_json import matching

MAX_RECIPE_BYTES = 1 << 20
MAX_LABELS_BYTES = 1 << 24
STEP_ROLES: tuple[Role, ...] = ("frame", "mask", "wrap")
REWRITE_ROLES: tuple[Role, ...] = ("model",)
OUTPUT_ROLES: tuple[Role, ...] = ("output",)
_SIZES = Rule("sizes from 1 to 65535", lambda value: bool(value) and all(0 < n < 1 << 16 for n in value)).metadata
_PATH = Rule("a path", lambda value: bool(value) and "\0" not in value).metadata


@dataclass(frozen=True)
class ModelEntry:
    """The trained model; paths are relative to the recipe. `trained_with`: the kinds of step it was trained with.

    `format` is the baked file's, the model's own if left out, or ONNX where it is in neither. `input_shape`: the sizes
    of its input, batch in front, where the model leaves them open. `module`: PACKAGE.MODULE:FACTORY, the user's code
    that makes the PyTorch module whose weights the file holds.
    """

    file: str = field(metadata=_PATH)
    labels: str | None = field(default=None, metadata=_PATH)
    layout: Layout | None = None
    trained_with: tuple[str, ...] = ()
    format: ModelFormat | None = None
    input_shape: tuple[int, ...] | None = field(default=None, metadata=_SIZES)
    module: str | None = None


@dataclass(frozen=True)
class VerifyEntry:
    """Real images that parity is tested on; a path relative to the recipe."""

    images: str | None = field(default=None, metadata=_PATH)


@dataclass(frozen=True)
class RecogniseEntry:
    """The recipe, a path relative to this one, whose model gets what this one's boxes hold.

    `offset` (x, y): the shares of its size by which a box moves before it is cropped.
    """

    recipe: str = field(metadata=_PATH)
    label: str | None = None
    margin: float = param(0.2, doc="share of its size by which a box grows", low=0, high=4)
    offset: tuple[float, ...] = field(default=(0.0, 0.0), metadata=Rule("two numbers from -1 to 1", is_offset).metadata)
    max_crops: int = param(4, doc="how many boxes of a frame are cropped, the best first", low=1, high=64)


@dataclass(frozen=True)
class CanEntry:
    """A message that the bundle may send on a CAN bus; without `data_id` it is the low 16 bits of the identifier."""

    message: CanMessage
    id: int = param(doc="identifier on the bus", low=0, high=EXTENDED_ID)
    extended: bool = False
    data_id: int | None = param(None, doc="what the checksum knows the sender by", low=0, high=0xFFFF)
    period_ms: int = param(100, doc="time from one sending to the next", low=5, high=10_000)

    def record(self) -> CanRecord:
        """As the manifest has it."""
        data_id = self.id & 0xFFFF if self.data_id is None else self.data_id
        return CanRecord(self.message, self.id, self.extended, data_id, self.period_ms)


@dataclass(frozen=True)
class RuntimeEntry:
    """What the daemon keeps to; `can`: all that it may send on a CAN bus.

    `providers`: which of the target's may run it, the best first; all of them if left out.
    """

    max_age_ms: int = param(1000, doc="older frames are not answered", low=1, high=3_600_000)
    can: tuple[CanEntry, ...] = ()
    providers: tuple[Provider, ...] = ()


@dataclass(frozen=True)
class _Document:
    schema: Literal[1]
    name: str = field(metadata=matching(NAME))
    model: ModelEntry
    frame: Format
    steps: tuple[dict[str, Any], ...] = ()
    rewrites: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    verify: VerifyEntry = field(default_factory=VerifyEntry)
    runtime: RuntimeEntry = field(default_factory=RuntimeEntry)
    recognise: RecogniseEntry | None = None
    precision: PrecisionEntry = field(default_factory=PrecisionEntry)
    policy: PolicyEntry | None = None


@dataclass(frozen=True)
class Recipe:
    """What to bake: model, frame, steps in front, rewrites inside, outputs; `folder` is where its paths start."""

    name: str
    folder: Path
    model: ModelEntry
    frame: Format
    steps: tuple[Map | Wrap, ...] = ()
    outputs: tuple[Output, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    verify: VerifyEntry = field(default_factory=VerifyEntry)
    runtime: RuntimeEntry = field(default_factory=RuntimeEntry)
    assumed: tuple[str, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    recognise: RecogniseEntry | None = None
    precision: PrecisionEntry = field(default_factory=PrecisionEntry)
    policy: PolicyEntry | None = None

    @property
    def model_path(self) -> Path:
        """Where the trained model lies."""
        return self.folder / self.model.file

    @property
    def recogniser_path(self) -> Path | None:
        """Where the recogniser's recipe lies, if this one names it."""
        return self.folder / self.recognise.recipe if self.recognise else None

    @property
    def images_path(self) -> Path | None:
        """Where the images for parity lie, if the recipe names them."""
        return self.folder / self.verify.images if self.verify.images else None

    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, one a line in the file that the recipe names."""
        if self.model.labels is None:
            return None
        text = _text(self.folder / self.model.labels, MAX_LABELS_BYTES)
        return tuple(line for line in text.splitlines() if line)

    @property
    def untrained(self) -> list[str]:
        """The kinds of step that the model must be trained with, and is not said to be."""
        kinds = [step.kind for step in (*self.steps, *self.rewrites) if step.retrain]
        return [kind for kind in dict.fromkeys(kinds) if kind not in self.model.trained_with]

    def with_masks(self, masks: Iterable[Map | Wrap | Rewrite]) -> Recipe:
        """This recipe with further masks before its first normalise step, or at the end; rewrites go into the model."""
        masks = tuple(masks)
        front = [mask for mask in masks if not isinstance(mask, Rewrite)]
        inside = [mask for mask in masks if isinstance(mask, Rewrite)]
        kinds = [step.kind for step in self.steps]
        at = kinds.index("normalise") if "normalise" in kinds else len(kinds)
        steps = (*self.steps[:at], *front, *self.steps[at:])
        return replace(self, steps=steps, rewrites=(*self.rewrites, *inside))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; UserError lists every fault as `file: $.path: …`."""
    return parse_recipe(_text(path, MAX_RECIPE_BYTES), path)


def parse_recipe(text: str, path: Path) -> Recipe:
    """The recipe in `text`; `path` is where it came from."""
    try:
        values = _plain(tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    faults = Faults(str(path))
    document: _Document | None = structure(_Document, values, "$", faults)
    steps = _steps(values.get("steps"), "$.steps", STEP_ROLES, faults)
    rewrites = _steps(values.get("rewrites"), "$.rewrites", REWRITE_ROLES, faults)
    outputs = _steps(values.get("outputs"), "$.outputs", OUTPUT_ROLES, faults)
    _check_trained_with(document, faults)
    if document is not None:
        document.precision.note_faults("$.precision", faults)
        check_can(tuple(entry.record() for entry in document.runtime.can), None, "$.runtime.can", faults)
    _check_frame(document, faults)
    if document is None or faults:
        raise faults.error("`edgemask init MODEL` writes a recipe to start from; `edgemask masks` lists the steps")
    return Recipe(
        document.name,
        path.parent,
        document.model,
        document.frame,
        tuple(steps),
        tuple(step.read(path.parent) for step in outputs),
        document.thresholds,
        document.verify,
        document.runtime,
        rewrites=tuple(rewrites),
        recognise=document.recognise,
        precision=document.precision,
        policy=document.policy,
    )


def _steps(entries: Any, path: str, roles: tuple[Role, ...], faults: Faults) -> list[Any]:
    if not isinstance(entries, list):
        return []
    return [_step(entry, f"{path}[{i}]", roles, faults) for i, entry in enumerate(entries) if isinstance(entry, dict)]


def _step(entry: dict[str, Any], path: str, roles: tuple[Role, ...], faults: Faults) -> Step | None:
    kinds = kinds_of(roles)
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        problem = f"value {kind!r}" if "kind" in entry else "missing"
        faults.add(f"{path}.kind", problem, allowed=", ".join(sorted(kinds)), match=closest(str(kind), kinds))
        return None
    step: Step | None = structure(kinds[kind], {k: v for k, v in entry.items() if k != "kind"}, path, faults)
    return step


def _check_trained_with(document: _Document | None, faults: Faults) -> None:
    kinds = sorted(kind for kind, cls in registry().items() if cls.retrain)
    for index, kind in enumerate(document.model.trained_with if document else ()):
        if kind not in kinds:
            path = f"$.model.trained_with[{index}]"
            faults.add(path, f"value {kind!r}", allowed=", ".join(kinds), match=closest(kind, kinds))


def _check_frame(document: _Document | None, faults: Faults) -> None:
    frame = document.frame if document else None
    for name, allowed in problems(frame) if frame else ():
        faults.add(f"$.frame.{name}", f"value {getattr(frame, name)!r}", allowed=allowed)


def _plain(value: Any) -> Any:
    """Dates, nan, inf and integers beyond TOML's 64 bits as text: no field takes them, and the error shows them."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, datetime.date | datetime.time) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return str(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value


def _text(path: Path, limit_bytes: int) -> str:
    try:
        return read_bytes(path, limit_bytes=limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
