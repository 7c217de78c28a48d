"""Bundles: a baked model, verified on real images, with its manifest and evidence, for one target."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemask import __version__
from edgemask.artefact import Artefact
from edgemask.auditing.finding import Finding, Findings
from edgemask.baking import Baked, Plan, bake_plan, plan
from edgemask.errors import UserError
from edgemask.models import METADATA_KEY
from edgemask.parity import Parity, random_frames, verify_chain
from edgemask.pictures import load_frames
from edgemask.proof import Proof
from edgemask.recipe import Recipe, RuntimeEntry
from edgemask.recognition import check_recogniser
from edgemask.report import render
from edgemask.target import Target, find_target
from edgemask.verification import RANDOM_FRAMES
from edgemask_runtime.bundle import (
    SUFFIX,
    Manifest,
    ModelRecord,
    ProofRecord,
    RecogniserRecord,
    StepRecord,
    file_records,
    pack_bundle,
    payload_digest,
    write_bundle,
)
from edgemask_runtime.files import write_atomic
from edgemask_runtime.probe import EVIDENCE_KEY, FLOAT_DB, INEXACT_DB, WHOLE_SUMS_DB, record

RECOGNISER = f"recogniser{SUFFIX}"


@dataclass(frozen=True)
class Built:
    """A bundle and its report on disk."""

    bundle: Path
    report: Path
    manifest: Manifest
    proof: Proof
    parity: Parity
    digest: str
    audit: Finding | None


@dataclass(frozen=True)
class _Payload:
    """A bundle's content, verified, before it is packed."""

    manifest: Manifest
    files: dict[str, bytes]
    proof: Proof
    parity: Parity
    report: str
    evidence: dict[str, Any]
    audit: Finding | None


def build(
    recipe: str | Path,
    target: str,
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    trained_with_mask: bool = False,
    publish_key: str | Path | None = None,
    precision: Mapping[str, Any] | None = None,
    audits: Sequence[str | Path] = (),
) -> Built:
    """Bake `recipe`, verify it on real images and random frames, and write the bundle for `target`.

    `images` is a file or folder, the recipe's if left out; `out` is a folder, build/TARGET if left out. Nothing is
    written unless parity holds. `trained_with_mask`: the model was trained with those masks that ask for it.
    `publish_key`: a file whose key is baked as a constant, for all to read. `precision` (quantisation.options.chosen)
    outweighs the recipe's. `audits`: what `edgemask audit` wrote of this very file, and of the recogniser's; without
    any, that in build/audit is taken if it is of this file. UserError: any fault of input, an audit of another file, a
    policy of the recipe that no audit meets, and a quantised model that changes too many answers.
    """
    board = find_target(target)
    key = Path(publish_key) if publish_key is not None else None
    made = plan(recipe=Path(recipe), trained_with_mask=trained_with_mask, publish_key=key, precision=precision)
    findings = Findings([Path(path) for path in audits])
    payload = _payload(made, board, findings, Path(images) if images is not None else None)
    if path := made.recipe.recogniser_path:
        inner = plan(recipe=path, trained_with_mask=trained_with_mask)
        payload = _joined(payload, _payload(inner, board, findings), made.recipe)
    findings.require_used()
    manifest = payload.manifest
    folder = _folder(Path(out) if out is not None else Path("build") / target)
    bundle, report = folder / f"{manifest.name}-{target}{SUFFIX}", folder / "report.md"
    write_bundle(bundle, manifest, payload.files, {**payload.evidence, "machine": _machine()})
    write_atomic(report, payload.report.encode())
    return Built(bundle, report, manifest, payload.proof, payload.parity, payload_digest(manifest), payload.audit)


def manifest_of(artefact: Artefact, proof: Proof, target: Target, runtime: RuntimeEntry) -> Manifest:
    """What the device is told: it follows from the baked file, the proof and the target alone.

    UserError when the label states what no manifest may.
    """
    model, label = artefact.model, artefact.label
    file = f"model.{model.format}"
    manifest = Manifest(
        schema=1,
        name=label.name,
        target=target.name,
        engine=getattr(target.engines, model.format),
        model=ModelRecord(file, model.format, label.source),
        frame=label.frame,
        entropy=label.entropy,
        key=label.key,
        chain=tuple(
            StepRecord(note.kind, note.role, note.parameters, proof.steps.get(f"{i}.{note.kind}", False), note.gives)
            for i, note in enumerate(label.chain, 1)
        ),
        outputs=label.outputs,
        labels=label.labels,
        thresholds=label.thresholds,
        max_age_ms=runtime.max_age_ms,
        proof=ProofRecord(proof.masked, proof.cut_by, ", ".join(proof.lift_at) or None),
        recogniser=None,
        tools={"edgemask": __version__},
        files=file_records({file: model.data}),
        can=tuple(entry.record() for entry in runtime.can),
        providers=target.engines.allowed(model.format, runtime.providers),
    )
    return Manifest.from_json(manifest.to_json(), f"{model.path}: {METADATA_KEY}")


def _payload(made: Plan, board: Target, findings: Findings, images: Path | None = None) -> _Payload:
    baked = bake_plan(made)
    audit = findings.of(baked.artefact.model.sha256)
    if made.recipe.policy:
        made.recipe.policy.demand(made.recipe.name, audit)
    parity = _verified(made, baked, images or made.recipe.images_path)
    manifest = manifest_of(baked.artefact, baked.proof, board, made.recipe.runtime)
    files = {manifest.model.file: baked.artefact.model.data}
    judgement = made.quantised.judgement if made.quantised else None
    judged: dict[str, Any] = {"precision": judgement.to_json()} if judgement else {}
    judged |= {"metrics": baked.measured.to_json()} if baked.measured else {}
    judged |= {"audit": audit.to_json()} if audit else {}
    judged |= {EVIDENCE_KEY: record(manifest, baked.artefact.model.open(), _elsewhere_db(made, baked)).to_json()}
    report = render(manifest, baked.proof, parity, made.recipe.assumed, judgement, baked.measured, audit)
    return _Payload(manifest, files, baked.proof, parity, report, {"parity": parity.to_json(), **judged}, audit)


def _joined(outer: _Payload, inner: _Payload, recipe: Recipe) -> _Payload:
    """`outer` with `inner` as its recogniser; the inner archive holds no evidence: its bytes follow from it alone."""
    entry = recipe.recognise
    if entry is None:
        return outer
    check_recogniser(outer.manifest, inner.manifest, entry)
    files = {**outer.files, RECOGNISER: pack_bundle(inner.manifest, inner.files, {})}
    record = RecogniserRecord(RECOGNISER, entry.label, entry.margin, entry.offset, entry.max_crops)
    manifest = replace(outer.manifest, recogniser=record, files=file_records(files))
    report = f"{outer.report}\n{inner.report}"
    return replace(
        outer, manifest=manifest, files=files, report=report, evidence={**outer.evidence, "recogniser": inner.evidence}
    )


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made a folder: {error.strerror}", "-o names another one") from error
    return path


def _verified(made: Plan, baked: Baked, images: Path | None) -> Parity:
    frames = load_frames(images, made.chain.frame) if images else []
    randoms = random_frames(made.chain.frame, RANDOM_FRAMES)
    parity = verify_chain(baked.artefact, made.chain, randoms, made.source, frames, made.exact)
    parity.require()
    return parity


def _elsewhere_db(made: Plan, baked: Baked) -> float:
    """How near another processor's answers must be to those of this one."""
    if baked.artefact.model.sums_whole_numbers():
        return WHOLE_SUMS_DB
    steps = [*(link.step for link in made.chain.links), *(inside.step for inside in made.chain.rewrites)]
    precision = baked.artefact.label.source.precision
    return FLOAT_DB if precision is None and all(getattr(step, "exact", True) for step in steps) else INEXACT_DB


def _machine() -> dict[str, Any]:
    return {
        "arch": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
