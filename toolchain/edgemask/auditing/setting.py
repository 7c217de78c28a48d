"""What one audit is of: the file and its twins with gradients, made ready once and opened in any process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
import torch

from edgemask.artefact import Artefact
from edgemask.auditing.attacks import Target
from edgemask.auditing.defence import Defence
from edgemask.auditing.entry import entry_of
from edgemask.auditing.following import as_onnx, is_quantised
from edgemask.auditing.shipped import Shipped, classes_of, real
from edgemask.auditing.threat import Threat
from edgemask.auditing.twin import NoTwin
from edgemask.baking import Plan, bake_plan, grafted, plan
from edgemask.chain import Chain
from edgemask.models import Model
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.protocol import Array
from edgemask.recipe import Recipe
from edgemask.steps import Mask, Wrap
from edgemask.suggest import chain_around
from edgemask_runtime.formats import Pixels

PARITY_FRAMES = 8
MAX_RELATIVE_ERROR = 1e-3
"""Of a twin's scores, against the largest of them."""
QUANTISED_ERROR = 2e-2
"""The same where values are rounded inside: one that lies between two integers may fall to the other one here."""
CONVERTED = "the gradient is that of the TFLite file as tf2onnx makes ONNX of it, whose scores are the engine's"
ROUNDED = "the model is quantised: its roundings pass the gradient straight through, in the naive attacks, too"


@dataclass(frozen=True)
class TwinFile:
    """The chain around a model, the model as ONNX, and which of its outputs are the scores: see Defence.

    `notes`: what a reader must know of its gradient.
    """

    chain: Chain
    onnx: bytes
    scores: str
    quantisation: tuple[float, int] | None
    one_by_one: bool
    notes: tuple[str, ...]

    def open(self, key: bytes | None) -> Defence:
        """With gradients."""
        key = key if self.chain.key_bytes else None
        proto = onnx.load_model_from_string(self.onnx)
        return Defence(self.chain, proto, self.scores, key, self.quantisation, one_by_one=self.one_by_one)


@dataclass(frozen=True)
class Setting:
    """What is attacked, as bytes: `artefact` from the first picture on, `sha256` of the file that ships.

    `undefended`: the model without its masks; `no_gradient` says why neither twin is there, if so.
    `images`: what an attacker may train a copy on.
    """

    artefact: Artefact
    sha256: str
    classes: int
    key: bytes | None
    defence: TwinFile | None
    undefended: TwinFile | None
    no_gradient: str | None
    images: Pixels | None = None

    @cached_property
    def digest(self) -> str:
        """Of all that a result depends on here; the label in the file states the chain."""
        parts = [self.artefact.model.data, self.key or b"", b"" if self.images is None else self.images.tobytes()]
        parts += [twin.onnx if twin else b"" for twin in (self.defence, self.undefended)]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def target(self, threat: Threat) -> Target:
        """The file on its engine, and the twins."""
        shipped = Shipped(self.artefact, self.classes, self.key, self.sha256)
        defence = self.defence.open(self.key) if self.defence else None
        undefended = self.undefended.open(self.key) if self.undefended else None
        return Target(shipped, threat, defence, undefended, self.images)


@dataclass(frozen=True)
class Scene:
    """The file under attack, the model without its masks, and the frames that both get, as pictures."""

    file: Setting
    undefended: Setting
    frames: Pixels
    bound_on: str


def scene_of(made: Plan, frames: Pixels, key: bytes | None = None) -> Scene:
    """Bake what was planned, once, and make its twins; `frames` are the camera's.

    UserError when the frames become no pictures, or the model is no classifier.
    """
    whole = bake_plan(made).artefact
    entry = entry_of(made, whole)
    classes = classes_of(made.source)
    pictures = entry.pictures(frames, key)
    bare = without_masks(entry.plan)
    twins, why_not = _twins(entry.plan, bare, pictures, key)
    keys = [key if one.chain.key_bytes else None for one in (entry.plan, bare)]
    file = Setting(entry.artefact, whole.model.sha256, classes, keys[0], *twins, why_not, pictures)
    undefended = replace(file, artefact=grafted(bare), key=keys[1], defence=twins[1], images=None)
    return Scene(file, undefended, pictures, entry.place)


def setting_of(recipe: Recipe, frames: Pixels, key: bytes | None = None) -> Setting:
    """What a recipe makes, for frames as the camera delivers them."""
    return scene_of(plan(recipe=recipe), frames, key).file


def without_masks(made: Plan) -> Plan:
    """The same model behind the recipe less its masks and rewrites, but for those that it was trained with."""
    recipe = made.recipe
    steps = tuple(step for step in recipe.steps if step.retrain or not isinstance(step, Mask | Wrap))
    rewrites = tuple(step for step in recipe.rewrites if step.retrain)
    bare = replace(recipe, name=f"{recipe.name}-undefended", steps=steps, rewrites=rewrites, thresholds={})
    return replace(made, recipe=bare, chain=chain_around(made.source, bare))


Twins = tuple[TwinFile | None, TwinFile | None]


def _twins(made: Plan, bare: Plan, frames: Pixels, key: bytes | None) -> tuple[Twins, str | None]:
    try:
        return (_twin(made, frames, key), _twin(bare, frames, key)), None
    except NoTwin as reason:
        return (None, None), reason.message


def _twin(made: Plan, frames: Pixels, key: bytes | None) -> TwinFile:
    """The chain around the model's twin, which gives what the model gives on real frames."""
    source, chain = made.source, made.chain
    inside, scores = source.rewritten(chain.rewrites), source.outputs[-1]
    followed = as_onnx(inside)
    one_by_one = followed.inputs[0].shape[0] == 1
    notes = (*([CONVERTED] if source.format == "tflite" else []), *([ROUNDED] if is_quantised(followed.proto) else []))
    twin = TwinFile(chain, followed.data, scores.name, scores.quantisation, one_by_one, notes)
    key = key if chain.key_bytes else None
    _check_twin(twin, inside, frames[:PARITY_FRAMES], key)
    return twin


def _check_twin(twin: TwinFile, model: Model, frames: Pixels, key: bytes | None) -> None:
    """NoTwin unless it gives what `model` gives on its own engine."""
    engine, chain = model.open(), twin.chain
    drawn = _drawn(len(frames), chain.entropy_bytes)
    secret = None if key is None else np.tile(np.frombuffer(key, np.uint8), (len(frames), 1))

    def run(x: Array) -> dict[str, Array]:
        feeds = {info.name: drawn if info.name == "entropy" else np.ascontiguousarray(x) for info in engine.inputs}
        rows = [
            engine.run({name: value[at : at + 1] for name, value in feeds.items() if value is not None})
            for at in range(len(frames))
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    given = replace(chain, tails=()).run(NumpyOps(), frames, drawn, run, key=secret)[twin.scores]
    want = real(given.reshape(len(frames), -1).astype(np.float32), twin.quantisation)
    have = twin.open(key).raw(torch.tensor(frames).float(), None if drawn is None else torch.from_numpy(drawn)).numpy()
    apart = float(np.abs(have - want).max())
    allowed = QUANTISED_ERROR if ROUNDED in twin.notes else MAX_RELATIVE_ERROR
    if apart > allowed * max(1.0, float(np.abs(want).max())):
        raise NoTwin(f"PyTorch's scores lie {apart:g} from the engine's: no gradient of it is trusted")


def _drawn(count: int, size: int) -> Array | None:
    return np.random.default_rng(0).integers(0, 256, (count, size), np.uint8) if size else None
