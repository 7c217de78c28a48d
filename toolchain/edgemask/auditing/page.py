"""An audit as one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edgemask.auditing import plots
from edgemask.auditing.convergence import FRAMES as TRACED
from edgemask.auditing.convergence import Trace
from edgemask.auditing.outcome import CURVE_FRAMES, Report, Row
from edgemask.metrics.intervals import Figure

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;color:#1c1f23}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem}p.sub{color:#5a6069;margin-top:0}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid #e3e6ea;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.verdict{border-left:6px solid #c0392b;background:#faf2f1;padding:.8rem 1.1rem;margin:1.2rem 0}
.verdict.EMPIRICAL{border-color:#2d6fb5;background:#f1f5fa}.verdict.NOT{border-color:#b8721d;background:#faf6f0}
.verdict b{font-size:1.25rem}svg{width:100%;height:auto;font-size:12px}svg .grid{stroke:#dfe3e8;fill:none}
svg .ci{stroke:#1c1f23;fill:none}figure{display:inline-block;margin:.3rem .6rem .3rem 0}
figure img{image-rendering:pixelated}figcaption{font-size:12px;color:#5a6069}
.key span{display:inline-block;margin-right:1rem}
.key i{display:inline-block;width:.8rem;height:.8rem;margin-right:.3rem}
"""
KNOWLEDGE = {
    "none": "knows nothing",
    "naive": "follows the graph's gradient as it is",
    "adaptive": "adapts to each mask (BPDA, EOT)",
    "transfer": "uses the model without its masks",
    "scores": "asks for scores",
    "decisions": "asks for labels",
}
LIMITS = """
<p>An audit can break a model and cannot prove one robust: an attack that is not here may do better. Whoever holds the
file can lift the model out of it and follow its full gradient. The figures hold for these images and this bound; other
images, other changes of a frame (patches, light, weather) and other tasks are other questions.</p>
"""


def page(report: Report) -> str:
    """The report as HTML, pictures and plots inside."""
    title = f"Audit of {escape(report.name)}"
    sections = [
        _head(report),
        _verdict(report),
        "<h2>Naive against adaptive</h2>",
        _key(report.rows),
        plots.bars(report.rows),
        _compared(report),
        *_curve(report),
        *_traces(report),
        "<h2>Signs of a masked gradient</h2>",
        _indicators(report),
        "<h2>Natural corruptions, five severities</h2>",
        _corruptions(report),
        *_examples(report),
        "<h2>What this does not say</h2>",
        LIMITS,
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(sections)
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"


def share(figure: Figure) -> str:
    """`12.5 % (8.0 to 19.1 %)`."""
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def _head(report: Report) -> str:
    bound = f"{report.threat} on {report.bound_on}"
    facts = f"{report.n} images, {report.classes} classes, {bound}, budget {report.budget}, {report.engine}"
    below = f"{escape(facts)}<br>sha256 <code>{report.sha256}</code>"
    return f"<h1>Audit of {escape(report.name)}</h1><p class=sub>{below}</p>"


def _verdict(report: Report) -> str:
    verdict = report.verdict
    bound = f" AT {report.threat}" if verdict.robustness == "EMPIRICAL" else ""
    rows = [("clean", report.clean), ("naive white-box", report.naive), ("adaptive white-box", report.adaptive)]
    rows.append(("worst of all attacks on each image", report.worst))
    facts = _table((), [(name, share(figure)) for name, figure in rows if figure is not None])
    rows_unmet = "".join(f"<li>{escape(short)}</li>" for short in report.unmet)
    unmet = f"<p><b>The recipe's policy is not met:</b></p><ul>{rows_unmet}</ul>" if report.unmet else ""
    why = f"<p>No gradient: {escape(report.no_gradient)}.</p>" if report.no_gradient else ""
    why += "".join(f"<p>Note: {escape(note)}.</p>" for note in report.notes)
    return (
        f'<div class="verdict {verdict.robustness}"><b>robustness: {verdict.robustness}{escape(bound)}</b><br>'
        f"gradient: {verdict.gradient}<br>{escape(verdict.reason)}</div>{unmet}{why}{facts}"
    )


def _key(rows: Sequence[Row]) -> str:
    used = dict.fromkeys(row.knowledge for row in rows)
    spans = (f'<span><i style="background:{plots.COLOURS[name]}"></i>{KNOWLEDGE[name]}</span>' for name in used)
    return f"<p class=key>{''.join(spans)}</p><p>Share of images still right, with 95 % intervals.</p>"


def _compared(report: Report) -> str:
    if not report.compared:
        return ""
    rows = [(name, row.attack, share(row.left)) for name, others in report.compared.items() for row in others]
    return "<h2>Beside it</h2>" + _table(("model", "attack", "left right"), rows)


def _curve(report: Report) -> list[str]:
    if not report.curve:
        return []
    about = f"<p>Of the first {min(report.n, CURVE_FRAMES)} images.</p>"
    return ["<h2>The adaptive attack at other bounds</h2>", about, plots.curve(report.curve, report.threat.norm)]


def _traces(report: Report) -> list[str]:
    if not report.traces:
        return []
    about = f"<p>Of {TRACED} images at most, on PyTorch's twin, before examples are rounded to whole grey levels.</p>"
    left, loss = ([(trace.knowledge, trace.attack, line) for trace, line in pairs] for pairs in _lines(report.traces))
    return [
        "<h2>Convergence</h2>",
        "<p>An attack that still gains when it ends was not run for long enough; one that never moves was misled.</p>",
        about,
        plots.lines(left, "share still right in each iteration", percent=True),
        plots.lines(loss, "mean loss in each iteration", percent=False),
    ]


def _lines(traces: Sequence[Trace]) -> tuple[list[tuple[Trace, tuple[float, ...]]], ...]:
    return [(trace, trace.left) for trace in traces], [(trace, trace.loss) for trace in traces]


def _indicators(report: Report) -> str:
    rows = [
        (sign.name, f"{sign.value:.3g}", f"{sign.limit:.3g}", "yes" if sign.flagged else "no", sign.meaning)
        for sign in report.indicators
    ]
    return _table(("sign", "value", "limit", "seen", "what it means if seen"), rows)


def _corruptions(report: Report) -> str:
    rows = [(name, *(f"{value:.0%}" for value in values)) for name, values in report.corruptions.items()]
    mean = f"<p>Mean of all: {share(report.corrupted)}.</p>"
    return mean + _table(("", "1", "2", "3", "4", "5"), rows)


def _examples(report: Report) -> list[str]:
    if not report.examples:
        return []
    return ["<h2>Examples</h2>", *(f"<div>{plots.example(*pair)}</div>" for pair in report.examples)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"
