"""Plain data as people read it in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemask.assessment import Assessment
from edgemask.bundle import Built
from edgemask.calibration import Calibration
from edgemask.health import Health
from edgemask.models import Model
from edgemask.params import describe
from edgemask.parity import Parity
from edgemask.presets import PRESETS
from edgemask.report import distance_text, figures_of, judgement_text, key_text
from edgemask.spec import Spec
from edgemask.steps import Mask, Rewrite, Step, Wrap, registry
from edgemask_runtime.answers import Quantity, Reading
from edgemask_runtime.bundle import KeyInput
from edgemask_runtime.detections import Detection
from edgemask_runtime.labels import Guess


def columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under a header, in columns as wide as they need."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def inspection_text(inspection: Mapping[str, Any]) -> str:
    """What `inspect` found, for reading."""
    lines = [f"{inspection['file']}: {inspection['format']}, sha256 {inspection['sha256']}"]
    for side in ("inputs", "outputs"):
        lines += [f"{side[:-1]:6}  {p['name']}: {p['dtype']} {_shape(p['shape'])}" for p in inspection[side]]
    lines += [f"source  {source_text(inspection['source'])}"] if inspection["source"] else []
    if inspection["key"]:
        lines.append(f"key     {key_text(KeyInput(**inspection['key']))}")
    chain = chain_text(inspection) if inspection["steps"] else "not baked: all of it is the model's own"
    return "\n".join([*lines, "", chain, "", proof_text(inspection["proof"])])


def conversion_text(out: Path, model: Model) -> str:
    """What a conversion made, and with what."""
    record = model.origin.converted
    how = f"by {_versions(record.tools)}" if record else "as it was"
    moved = record.transposed if record else {}
    turned = [f"'{name}' has its source's axes in the order {list(axes)}" for name, axes in moved.items()]
    ends = [f"{side}  {info}" for side, infos in (("in ", model.inputs), ("out", model.outputs)) for info in infos]
    return "\n".join([f"{out}: {len(model.data):,} bytes, {how}", *ends, *turned])


def source_text(source: Mapping[str, Any]) -> str:
    """The trained model, and what converted it."""
    record = source["converted"]
    how = f", converted ({record['lane']}) by {_versions(record['tools'])}" if record else ""
    return f"{source['file']}, sha256 {source['sha256']}{how}"


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2)


def json_line(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value)


def health_text(health: Health) -> str:
    """What works here, as tables, and the commands that bring the rest."""
    head = [f"edgemask  {health.edgemask}", f"Python    {health.python}", f"platform  {health.platform}"]
    head += [f"targets   {', '.join(health.targets)}", f"cache     {health.cache}: {health.cache_bytes / 1e6:.1f} MB"]
    rows = [(f.area, f.name, "works" if f.works else f.problem, _versions(f.versions)) for f in health.findings]
    commands = dict.fromkeys(finding.install for finding in health.findings if finding.install)
    verdict = "the core works" if health.works else "the core does not work"
    found = columns(("", "what", "state", "versions"), rows)
    return "\n".join([*head, "", found, "", verdict, *(f"for the rest: {command}" for command in commands)])


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def built_values(built: Built) -> dict[str, Any]:
    """What was built, as plain data."""
    return {
        "bundle": str(built.bundle),
        "report": str(built.report),
        "payload_digest": built.digest,
        "proof": asdict(built.manifest.proof),
        "parity": built.parity.to_json(),
        "audit": built.audit.to_json() if built.audit else None,
    }


def built_text(built: Built) -> str:
    """What was built, for reading."""
    kilobytes = built.bundle.stat().st_size / 1024
    lines = [parity_text(built.parity), "", proof_text(built.proof.to_json()), ""]
    lines += [f"audit   {built.audit or 'none of this file: robustness NOT SHOWN (edgemask audit)'}"]
    lines += [f"bundle  {built.bundle} ({kilobytes:.0f} kB)", f"report  {built.report}", f"digest  {built.digest}"]
    return "\n".join(lines)


def step_catalogue() -> list[dict[str, Any]]:
    """Every step there is: kind, role, parameters, paper."""
    order = ("mask", "model", "wrap", "frame", "output")
    return [_step_entry(cls) for cls in sorted(registry().values(), key=lambda cls: (order.index(cls.role), cls.kind))]


def quantisation_text(found: Assessment) -> str:
    """What a precision costs, layer by layer in the order of the model."""
    rows = [(e.node, e.op, f"{e.sqnr_db:.1f}", f"{e.added:.3%}") for e in found.layers]
    record = found.record
    lines = [columns(("node", "operator", "signal/error dB", "noise added"), rows), ""]
    lines += [f"{record.type} by {record.tool}: {found.bytes:,} bytes, trained {found.trained_bytes:,}"]
    lines += [f"calibrated on {record.images} images"] if record.images else []
    lines += [judgement_text(found.judgement)] if found.judgement else ["not judged: name images with --judge"]
    lines += ["", columns(*figures_of(found.measured))] if found.measured else []
    lines += [f"REFUSED: {found.refusal}"] if found.refusal else []
    return "\n".join(lines)


def calibration_text(found: Calibration) -> str:
    """A threshold as a recipe states it, and what it was found on."""
    low, high = found.interval
    share = f"{found.above} of {found.images} clean images lie above it ({low:.1%} to {high:.1%}, 95 % interval)"
    return f"[thresholds]\nsuspicion = {found.threshold!r}\n# {share}"


def presets_text() -> str:
    """The presets as a table."""
    return columns(("preset", "steps"), [(name, " ".join(steps)) for name, steps in PRESETS.items()])


def catalogue_text() -> str:
    """The catalogue as a table."""
    rows = [
        (entry["kind"], entry["role"], _parameters(entry["parameters"]), entry["summary"]) for entry in step_catalogue()
    ]
    return columns(("kind", "role", "parameters", "what it does"), rows)


def chain_text(inspection: Mapping[str, Any]) -> str:
    """The chain step by step: what goes in and out, bytes of entropy and key, whether it cuts the gradient."""
    rows = [(index, *_step_row(step)) for index, step in enumerate(inspection["steps"], 1)]
    return columns(("step", "kind", "role", "parameters", "takes", "gives", "entropy bytes", "key bytes", "cuts"), rows)


def proof_text(proof: Mapping[str, Any]) -> str:
    """What the graph shows, and what it does not."""
    verdict = "not masked: a gradient path joins frame and model"
    if proof["masked"]:
        verdict = f"masked: every path from frame to model is cut by {', '.join(proof['cut_by'])}"
    lifts = f"the model can be lifted out, with its full gradient, at: {', '.join(proof['lift_at']) or '-'}"
    return f"{verdict}\n{lifts}\nmasking does not stop an attacker who adapts (docs/threat-model.md)"


def parity_text(parity: Parity) -> str:
    """Parity as a table with a verdict."""
    rows = [
        (e.name, e.values, f"{e.differing_share:.4%}", f"{e.max_difference:.3g}", "ok" if e.passed else "FAILS")
        for e in (*parity.steps, *parity.outputs)
    ]
    lines = [columns(("what", "values", "differing", "largest", ""), rows)]
    frames = f"{parity.images} images and {parity.random_frames} random frames on {parity.engine}"
    lines.append(f"{'parity holds' if parity.passed else 'parity FAILS'}: {frames}")
    if parity.fp32:
        lines.append(distance_text(parity))
    if parity.replays is not None:
        lines.append(f"entropy decides the masked tensor: {'yes' if parity.replays else 'NO'}")
    if parity.keyed is not None:
        lines.append(f"the key decides the masked tensor: {'yes' if parity.keyed else 'NO'}")
    if not parity.outputs:
        lines.append("only the prefix was verified: name the trained model with --source to verify the outputs")
    return "\n".join(lines)


def audit_text(report: Mapping[str, Any]) -> str:
    """An audit's rows, its signs of masking that were seen, and the verdict."""
    rows = [(row["attack"], row["knowledge"], _interval(row["left"])) for row in report["rows"]]
    rows = [("-", "clean", _interval(report["clean"])), *rows]
    rows.append(("all of them", "worst on each image", _interval(report["worst"])))
    for name, others in report["compared"].items():
        rows += [(row["attack"], f"on {name}", _interval(row["left"])) for row in others]
    seen = [f"{sign['name']} ({sign['value']:.3g})" for sign in report["indicators"] if sign["flagged"]]
    verdict = report["verdict"]
    threat, unit = report["threat"], 255 if report["threat"]["norm"] == "linf" else 1
    bound = f"{threat['norm']} {threat['eps'] * unit:g}{'/255' if unit > 1 else ''} on {report['bound_on']}"
    lines = [
        f"{report['name']}: {report['n']} images, {report['classes']} classes, {bound}, budget {report['budget']}",
        "",
        columns(("attack", "who", "still right (95 % interval)"), rows),
        f"signs of masking: {'; '.join(seen) or 'none'}",
    ]
    lines += [f"no gradient: {report['no_gradient']}"] if report["no_gradient"] else []
    lines += [f"note: {note}" for note in report["notes"]]
    lines.append(f"gradient {verdict['gradient']}, robustness {verdict['robustness']}: {verdict['reason']}")
    lines += [f"policy UNMET: {short}" for short in report["unmet"]]
    return "\n".join(lines)


def answer_text(answer: Mapping[str, Any]) -> str:
    """One answer on one line."""
    told = _reading_text(answer) or "; ".join(f"{name}: {_short(value)}" for name, value in answer["outputs"].items())
    suspicion = "" if answer["suspicious"] is None else f"  suspicious: {'YES' if answer['suspicious'] else 'no'}"
    height, width = answer.get("resized_from") or (0, 0)
    resized = f"  (resized from {width}×{height})" if width else ""
    return f"{answer['image']}: {told}{suspicion}{resized}"


def entropy_bytes(cls: type[Step]) -> int:
    """Bytes of entropy that a step with default parameters needs: for a frame of 224 x 224 RGB, or one activation."""
    if issubclass(cls, Rewrite):
        return cls().entropy_bytes((1,))
    return cls().entropy_bytes(Spec.image(224, 224, "rgb")) if issubclass(cls, Mask | Wrap) else 0


def key_bytes(cls: type[Step]) -> int:
    """Bytes of the key that a step with default parameters needs for a frame of 224 x 224 RGB."""
    return cls().key_bytes(Spec.image(224, 224, "rgb")) if issubclass(cls, Mask) else 0


def _step_row(step: Mapping[str, Any]) -> Sequence[object]:
    params = ",".join(f"{name}={_short(value)}" for name, value in step["params"].items() if value not in (None, ""))
    cuts = "yes" if step["cuts"] else "no"
    return (
        step["kind"],
        step["role"],
        params,
        step["takes"],
        step["gives"],
        step["entropy_bytes"],
        step["key_bytes"],
        cuts,
    )


def _step_entry(cls: type[Step]) -> dict[str, Any]:
    summary = (cls.__doc__ or "").strip().splitlines()[0]
    needs = entropy_bytes(cls)
    return {
        "kind": cls.kind,
        "role": cls.role,
        "family": cls.family,
        "summary": summary,
        "deterministic": needs == 0,
        "cuts": cls.cuts,
        "retrain": cls.retrain,
        "entropy_bytes": needs,
        "key_bytes": key_bytes(cls),
        "parameters": describe(cls),
        "paper": cls.paper,
        "claim": cls.claim,
        "fate": cls.fate,
    }


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{p['name']}={p['default']}" if p.get("default") is not None else p["name"] for p in parameters)


def _reading_text(answer: Mapping[str, Any]) -> str:
    """An answer as the daemon's text says it."""
    found, values = answer["detections"], answer["values"]
    return str(
        Reading(
            tuple(Guess(**guess) for guess in answer["top"]),
            answer["suspicious"],
            {},
            None if found is None else tuple(Detection(**entry) for entry in found),
            None if values is None else tuple(Quantity(**value) for value in values),
        )
    )


def _shape(shape: Sequence[int | None]) -> str:
    return "×".join("N" if size is None else str(size) for size in shape)


def _short(value: Any, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"
