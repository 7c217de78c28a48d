"""Baking: a trained model and a recipe to one file, tested before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgemask import __version__
from edgemask.artefact import Artefact, Label, as_artefact, notes
from edgemask.chain import Chain
from edgemask.conversion.sources import read_source
from edgemask.errors import UserError
from edgemask.metrics.contenders import baked_contender
from edgemask.metrics.measuring import Measured, measure
from edgemask.models import SUFFIXES, Format, Model
from edgemask.models.card import Card
from edgemask.parity import Parity, random_frames, verify_chain
from edgemask.presets import front_steps
from edgemask.proof import Proof, prove
from edgemask.quantisation.precision import QUANTISED, TRAINED, Quantised, at_precision, secret_key
from edgemask.recipe import Recipe, read_recipe
from edgemask.spec import Spec
from edgemask.steps import Step
from edgemask.suggest import chain_around, parse_frame, read_trained, suggest
from edgemask_runtime.bundle import EntropyInput, FrameInput, KeyInput, OutputRecord
from edgemask_runtime.entropy import DEFAULT_GENERATOR
from edgemask_runtime.files import write_atomic
from edgemask_runtime.keys import read_key
from edgemask_runtime.manifest import OutputRole

_OUTPUT_ROLES: dict[str, OutputRole] = {
    "probabilities": "probabilities",
    "top_scores": "top-scores",
    "top_indices": "top-indices",
    "suspicion": "suspicion",
    "class_map": "class-map",
    "embedding": "embedding",
    "value": "value",
}
_DETECTION_ROLES: dict[str, OutputRole] = {
    "boxes": "boxes",
    "scores": "scores",
    "classes": "classes",
    "count": "count",
    "keypoints": "keypoints",
}
SELF_TEST_FRAMES = 2


@dataclass(frozen=True)
class Plan:
    """What will be baked: the model, the recipe and the chain that they make, and a key to publish in it.

    `source` is the trained model, or, `quantised`, what became of it at the recipe's precision.
    """

    source: Model
    recipe: Recipe
    chain: Chain
    published_key: bytes | None = None
    quantised: Quantised | None = None

    @property
    def exact(self) -> tuple[Model, Chain] | None:
        """The trained model and its chain, where `source` is quantised."""
        return (self.quantised.trained, self.quantised.trained_chain) if self.quantised else None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes: the recipe's, or those that the trained model brings."""
        return self.recipe.labels() or (self.quantised.trained if self.quantised else self.source).labels


@dataclass(frozen=True)
class Baked:
    """A baked file in memory, with what its graph and a run of it show; `measured`: what a precision costs the task."""

    artefact: Artefact
    proof: Proof
    parity: Parity
    measured: Measured | None = None


def plan(
    model: Path | None = None,
    *,
    masks: Iterable[str | Step] = (),
    recipe: Path | Recipe | None = None,
    trained_with_mask: bool = False,
    publish_key: Path | None = None,
    form: Format | None = None,
    frame: str | None = None,
    precision: Mapping[str, Any] | None = None,
) -> Plan:
    """Read model and recipe and fit the chain; at least one of them must be given. `form` outweighs the recipe's.

    `precision` (quantisation.options.chosen) outweighs the recipe's, too; the answers of a quantised model are judged
    by `Quantised.require`, not here.

    Masks are added before the recipe's normalise step. UserError: files that cannot be read, steps that do not fit,
    a model that is not the recipe's, steps that it must be trained with and is not said to be, a key for no step.
    """
    added = front_steps(masks)
    if recipe is None:
        if model is None:
            raise UserError("neither a model nor a recipe is given")
        source = read_trained(model, form=form)
        read = suggest(source, added, parse_frame(frame) if frame else None)
    elif frame is not None:
        raise UserError("a recipe states its frame itself", "leave --frame out, or change [frame] in the recipe")
    else:
        read = (recipe if isinstance(recipe, Recipe) else read_recipe(recipe)).with_masks(added)
        source = read_trained(read.model_path, read.model, form, read.folder)
        _check_same(model, source, read)
    read = replace(read, precision=read.precision.with_choices(precision or {}))
    chain = chain_around(source, read)
    _check_thresholds(read, chain)
    if not trained_with_mask:
        _check_trained(read)
    key = _read_published(publish_key, chain)
    quantised = at_precision(source, chain, read, key)
    if quantised is None:
        return Plan(source, read, chain, key)
    return Plan(quantised.model, quantised.noted(read), quantised.chain, key, quantised)


def bake_plan(made: Plan) -> Baked:
    """Bake in memory, walk the graph, and run it against the reference on random frames; UserError if they differ."""
    if made.quantised:
        made.quantised.require()
    artefact = grafted(made)
    measured = task_figures(made, artefact)
    if made.quantised and measured:
        made.quantised.require_metric(measured)
    parity = verify_chain(artefact, made.chain, random_frames(made.chain.frame, SELF_TEST_FRAMES), made.source)
    parity.require()
    return Baked(artefact, prove(artefact.model.graph()), parity, measured)


def task_figures(made: Plan, artefact: Artefact | None = None) -> Measured | None:
    """The task's metric at fp32 and quantised, behind the same masks, on the labelled images that it is judged by."""
    found = made.quantised
    if found is None or found.data is None:
        return None
    key = secret_key(made.recipe, made.chain)
    exact = replace(made, source=found.trained, chain=found.trained_chain)
    contenders = [
        baked_contender(grafted(exact), TRAINED, key),
        baked_contender(artefact or grafted(made), QUANTISED, key),
    ]
    return measure(contenders, found.data)


def grafted(made: Plan) -> Artefact:
    """The file that a plan makes, not tested yet."""
    label = _label(made)
    data = made.source.graft(made.chain, label.to_json(), made.published_key, _card(label))
    return as_artefact(type(made.source)(made.source.path, data))


def bake(
    model: str | Path | None = None,
    out: str | Path | None = None,
    *,
    masks: Sequence[str | Step] = (),
    recipe: str | Path | Recipe | None = None,
    trained_with_mask: bool = False,
    publish_key: str | Path | None = None,
    frame: str | None = None,
    precision: Mapping[str, Any] | None = None,
) -> Baked:
    """Bake `model` behind `masks` or a recipe, and write it to `out` if given.

    `masks` are steps or their text, such as "jpeg:quality=75". The suffix of `out` decides the format. Nothing is
    written when the baked file does not answer as the reference does.
    `trained_with_mask`: the model was trained with those masks that ask for it.
    `publish_key`: a file whose key is baked as a constant, for all to read. `frame`: what the camera delivers, such as
    "nv12:1280x720", where no recipe says so. `precision` (quantisation.options.chosen) outweighs the recipe's.
    UserError: any fault of the input, and a quantised model whose answers are not the trained one's.
    """
    recipe = Path(recipe) if isinstance(recipe, str) else recipe
    form = _format_of(Path(out)) if out is not None else None
    made = plan(
        Path(model) if model is not None else None,
        masks=masks,
        recipe=recipe,
        trained_with_mask=trained_with_mask,
        publish_key=Path(publish_key) if publish_key is not None else None,
        form=form,
        frame=frame,
        precision=precision,
    )
    if out is not None:
        check_out(Path(out), made.source)
    baked = bake_plan(made)
    if out is not None:
        write_atomic(Path(out), baked.artefact.model.data)
    return baked


def _format_of(out: Path) -> Format:
    """The format that the suffix asks for."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: '{out.suffix}' is no format of a baked model", f"allowed: {', '.join(SUFFIXES)}")
    return SUFFIXES[out.suffix.lower()]


def check_out(out: Path, source: Model) -> None:
    """The trained model must survive."""
    if out.exists() and out.samefile(source.path):
        raise UserError(f"{out} is the trained model itself", "-o names another file")


def _check_same(model: Path | None, source: Model, recipe: Recipe) -> None:
    if model is None or model.resolve() == source.path.resolve():
        return
    if read_source(model).sha256 != source.origin.sha256:
        raise UserError(f"{model} is not the recipe's model {recipe.model_path}", "name one of them")


def _read_published(path: Path | None, chain: Chain) -> bytes | None:
    if path is not None and not chain.key_bytes:
        raise UserError("no step takes a key", "leave --publish-key out")
    return read_key(path, chain.key_bytes) if path is not None else None


def _check_trained(recipe: Recipe) -> None:
    for kind in recipe.untrained:
        raise UserError(
            f"{kind} needs a model that was trained with it",
            f'if it was: --trained-with-mask, or trained_with = ["{kind}"] under [model] in a recipe',
        )


def _check_thresholds(recipe: Recipe, chain: Chain) -> None:
    unknown = [
        name for name in recipe.thresholds if _OUTPUT_ROLES.get(name) != "suspicion" or name not in chain.outputs
    ]
    if unknown:
        raise UserError(f"$.thresholds.{unknown[0]}: no step gives this output", "feature-squeeze gives 'suspicion'")


def _label(made: Plan) -> Label:
    recipe, chain, source = made.recipe, made.chain, made.source
    entropy = EntropyInput("entropy", chain.entropy_bytes, DEFAULT_GENERATOR) if chain.entropy_bytes else None
    key = KeyInput("key", chain.key_bytes, made.published_key is not None) if chain.key_bytes else None
    return Label(
        schema=1,
        edgemask=__version__,
        name=recipe.name,
        source=source.origin,
        frame=_frame_input(chain.frame, source),
        entropy=entropy,
        key=key,
        chain=notes(chain),
        outputs=tuple(_output_record(name, chain, source) for name in chain.outputs),
        labels=made.labels,
        thresholds=dict(recipe.thresholds),
        assumed=recipe.assumed,
    )


def _card(label: Label) -> Card:
    roles = {record.name: record.role for record in label.outputs}
    return Card(label.name, label.frame.format, label.labels, roles)


def _frame_input(frame: Spec, source: Model) -> FrameInput:
    batch = 1 if source.format == "tflite" else source.inputs[0].shape[0]
    return FrameInput(**asdict(frame.camera), name="frame", dtype="uint8", batch=batch)


def _output_record(name: str, chain: Chain, source: Model) -> OutputRecord:
    if name in chain.untouched:
        given = next(info for info in source.outputs if info.name == name)
        return OutputRecord(name, given.dtype, given.shape, "raw")
    spec = chain.outputs[name]
    return OutputRecord(name, spec.dtype, spec.shape, _role(name, chain))


def _role(name: str, chain: Chain) -> OutputRole:
    """What an output of a step means; candidates, which have no count, are raw."""
    roles = _OUTPUT_ROLES | (_DETECTION_ROLES if "count" in chain.outputs else {})
    return roles.get(name, "raw")
