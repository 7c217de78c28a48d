"""What a device may tighten of what a bundle states: the age of a frame, the thresholds of suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgemask_runtime.answers import above
from edgemask_runtime.engines import ENGINES, Array, engines_for
from edgemask_runtime.errors import closest
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.settings import ModelSettings, PipelineSettings, Settings
from edgemask_runtime.strict_json import Faults


def check_manifests(settings: Settings, manifests: Mapping[str, Manifest], faults: Faults) -> None:
    """Note every setting that contradicts its model's manifest; `manifests` by the model's name."""
    for index, model in enumerate(settings.models):
        if model.name in manifests:
            _check_model(f"$.models[{index}]", model, manifests[model.name], faults)
    for index, pipeline in enumerate(settings.pipelines):
        if pipeline.model in manifests:
            _check_pipeline(f"$.pipelines[{index}]", pipeline, manifests[pipeline.model], faults)


def max_age_ms(pipeline: PipelineSettings, manifest: Manifest) -> int:
    """The age from which a frame is not answered: the lower one of the device's and the manifest's."""
    return min(pipeline.max_age_ms or manifest.max_age_ms, manifest.max_age_ms)


def tightened(pipeline: PipelineSettings, manifest: Manifest) -> Manifest:
    """The manifest as it holds on this device, for sinks that state ages and thresholds."""
    thresholds = {**manifest.thresholds, **pipeline.thresholds}
    return replace(manifest, max_age_ms=max_age_ms(pipeline, manifest), thresholds=thresholds)


def exceeds(outputs: Mapping[str, Array], thresholds: Mapping[str, float]) -> bool:
    """Whether an output of the first row is above its threshold; NaN is."""
    return above({name: outputs[name][0] for name in thresholds}, thresholds)


def _check_model(path: str, model: ModelSettings, manifest: Manifest, faults: Faults) -> None:
    if model.engine is not None and ENGINES[model.engine].format != manifest.model.format:
        problem = f"value {model.engine!r} does not run {manifest.model.format}"
        faults.add(f"{path}.engine", problem, allowed=", ".join(engines_for(manifest.model.format)))


def _check_pipeline(path: str, pipeline: PipelineSettings, manifest: Manifest, faults: Faults) -> None:
    if pipeline.max_age_ms is not None and pipeline.max_age_ms > manifest.max_age_ms:
        problem = f"value {pipeline.max_age_ms} is above the manifest's"
        faults.add(f"{path}.max_age_ms", problem, allowed=f"1 to {manifest.max_age_ms}")
    for name, limit in pipeline.thresholds.items():
        stated = manifest.thresholds.get(name)
        if stated is None:
            known = ", ".join(manifest.thresholds) or "none: the manifest states no thresholds"
            faults.add(
                f"{path}.thresholds.{name}", "unknown output", allowed=known, match=closest(name, manifest.thresholds)
            )
        elif limit > stated:
            faults.add(
                f"{path}.thresholds.{name}", f"value {limit:g} is above the manifest's", allowed=f"at most {stated:g}"
            )
    for index, sink in enumerate(pipeline.sinks):
        if sink.kind == "can":
            _check_can(f"{path}.sinks[{index}]", sink.settings.period_ms, manifest, faults)


def _check_can(path: str, period_ms: int | None, manifest: Manifest, faults: Faults) -> None:
    """A bus gets what the bundle allows, and at most as often."""
    least = min((record.period_ms for record in manifest.can), default=None)
    if least is None:
        faults.add(f"{path}.kind", "value 'can'", allowed="other kinds: the bundle states no message for a CAN bus")
    elif period_ms is not None and period_ms < least:
        problem = f"value {period_ms} is below the manifest's"
        faults.add(f"{path}.period_ms", problem, allowed=f"{least} or more")
