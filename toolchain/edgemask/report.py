"""The report that lies beside a bundle: what was baked, what was shown, and what was not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgemask.auditing.finding import Finding
from edgemask.metrics.measuring import Measured
from edgemask.parity import Agreement, Parity
from edgemask.proof import Proof
from edgemask.quantisation.gate import Judgement
from edgemask_runtime.bundle import KeyInput, Manifest, PrecisionRecord, SourceRecord

LIMITS = """\
Gradient masking does not stop an attacker who adapts to it. Whoever holds the file can put a smooth stand-in where the
gradient is cut (BPDA, Athalye et al. 2018), average over the randomness, query the answers, or lift the model out at
the tensor named above and follow its full gradient."""
UNMEASURED = "No robustness was measured here. `edgemask audit` attacks the file and says what is left."


def render(
    manifest: Manifest,
    proof: Proof,
    parity: Parity,
    assumed: Sequence[str],
    judgement: Judgement | None = None,
    measured: Measured | None = None,
    audit: Finding | None = None,
) -> str:
    """The report as Markdown."""
    sections = [
        f"# {manifest.name} for {manifest.target}",
        _source(manifest.model.source),
        *([_precision(manifest.model.source.precision, judgement)] if manifest.model.source.precision else []),
        *([table(*figures_of(measured))] if measured else []),
        "## Chain",
        _chain(manifest),
        *([f"**Key:** {key_text(manifest.key)}."] if manifest.key else []),
        *(f"**Assumed:** {note}." for note in assumed),
        "## What the graph shows",
        _proof(proof),
        LIMITS,
        "## Robustness",
        _robustness(audit) if audit else UNMEASURED,
        "## Parity",
        _parity(parity),
    ]
    return "\n\n".join(sections) + "\n"


def _source(source: SourceRecord) -> str:
    text = f"Trained model: `{source.file}`, sha256 `{source.sha256}`."
    if source.converted is None:
        return text
    tools = ", ".join(f"{name} {version}" for name, version in source.converted.tools.items())
    return f"{text} Converted ({source.converted.lane}) by {tools}; it answers as its source does on random inputs."


def _precision(record: PrecisionRecord, judgement: Judgement | None) -> str:
    text = f"Precision: **{record.type}**, by {record.tool}"
    if record.images:
        text += f", calibrated behind the masks on {record.images} images, digest `{record.calibration}`"
    if record.keep_float:
        text += f"; float: {', '.join(f'`{name}`' for name in record.keep_float)}"
    return f"{text}. {judgement_text(judgement)}." if judgement else f"{text}. Not judged."


def judgement_text(judgement: Judgement) -> str:
    """What the judge's images showed."""
    apart = ", ".join(f"{name} {value:.1f} dB" for name, value in judgement.sqnr_db.items())
    if judgement.agreement is None or judgement.interval is None:
        return f"On {judgement.images} other images, signal over error against fp32: {apart}; no classes to judge by"
    low, high = judgement.interval
    share = f"{judgement.agreement:.1%} ({low:.1%} to {high:.1%}, 95 % interval)"
    return f"On {judgement.images} other images the first class is fp32's for {share}; signal over error: {apart}"


def key_text(key: KeyInput) -> str:
    """Where the key is; never the key."""
    where = "PUBLIC: it lies in this file" if key.published else "secret: an input, from the device's own store"
    return f"{key.bytes} bytes, {where}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(header), ["---"] * len(header), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _chain(manifest: Manifest) -> str:
    rows = [
        (i, step.kind, step.role, _shown(step.parameters), step.gives, "yes" if step.cuts else "no")
        for i, step in enumerate(manifest.chain, 1)
    ]
    return table(("step", "kind", "role", "parameters", "gives", "cuts the gradient"), rows)


def _proof(proof: Proof) -> str:
    by = f" by {', '.join(proof.cut_by)}" if proof.cut_by else ""
    verdict = "**Not masked**: a gradient path joins the frame and the model."
    if proof.masked:
        verdict = f"Every path from the frame to the model is cut{by}."
    return f"{verdict}\n\nThe model can be lifted out at: {', '.join(f'`{name}`' for name in proof.lift_at)}."


def _robustness(audit: Finding) -> str:
    rows = [("clean", audit.clean), ("naive white-box", audit.naive), ("adaptive white-box", audit.adaptive)]
    rows.append(("worst of all attacks on each image", audit.worst))
    shares = [(name, f"{f.value:.1%} ({f.low:.1%} to {f.high:.1%})") for name, f in rows if f]
    verdict = audit.verdict
    bound = f" AT {audit.threat}" if verdict.robustness == "EMPIRICAL" else ""
    why = f" No gradient: {audit.no_gradient}." if audit.no_gradient else ""
    return (
        f"Robustness **{verdict.robustness}{bound}**, gradient **{verdict.gradient}**: {verdict.reason}.{why}\n\n"
        f"{table(('still right', 'share of images (95 % interval)'), shares)}\n\n"
        f"{audit.n} images, {audit.classes} classes, {audit.threat} on {audit.bound_on}, budget {audit.budget}, "
        f"{audit.engine}; the attackers knew: {', '.join(audit.knows)}. An audit can break a model and cannot prove "
        "one robust: an attack that is not in it may do better."
    )


def figures_of(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of metrics, with 95 % intervals."""
    names = list(measured.rows[0].figures)
    rows = [
        [row.name, *(f"{f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for f in (row.figures[name] for name in names))]
        for row in measured.rows
    ]
    return ["precision", *names], rows


def distance_text(parity: Parity) -> str:
    """How far a quantised model's outputs are from fp32."""
    apart = (f"{d.name} {d.sqnr_db:.1f} dB, {d.max_difference:.3g} at most" for d in parity.fp32)
    return f"signal over error against fp32: {'; '.join(apart)}"


def _parity(parity: Parity) -> str:
    frames = f"{parity.images} images and {parity.random_frames} random frames"
    intro = f"On {parity.engine}, {frames}, against the reference:"
    entries: tuple[Agreement, ...] = (*parity.steps, *parity.outputs)
    rows = [(e.name, e.values, f"{e.differing_share:.4%}", f"{e.max_difference:.3g}") for e in entries]
    text = f"{intro}\n\n{table(('what', 'values', 'differing', 'largest difference'), rows)}"
    return f"{text}\n\nApart from that, {distance_text(parity)}." if parity.fp32 else text


def _shown(parameters: dict[str, object]) -> str:
    return ", ".join(f"{name} = {_short(str(value))}" for name, value in parameters.items())


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
