"""Plots of an audit as SVG: no script, no file beside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from edgemask.auditing.outcome import Row
from edgemask_runtime.formats import Pixels

WIDTH, LABELS, BAR = 720, 250, 22
COLOURS = {
    "none": "#8a8f98",
    "naive": "#2f9e63",
    "adaptive": "#c0392b",
    "transfer": "#b8721d",
    "scores": "#2d6fb5",
    "decisions": "#7048a8",
}
SCALE = WIDTH - LABELS - 60
MAGNIFIED = 10


def bars(rows: Sequence[Row]) -> str:
    """What each attack left, with its 95 % interval."""
    height = BAR * len(rows) + 34
    parts = [_grid(height)]
    for number, row in enumerate(rows):
        y = number * BAR + 6
        parts.append(f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(row.attack)}</text>')
        parts.append(
            f'<rect x="{LABELS}" y="{y}" width="{row.left.value * SCALE:.1f}" height="{BAR - 8}" '
            f'fill="{COLOURS[row.knowledge]}"><title>{escape(row.attack)}: {row.left.value:.1%}</title></rect>'
        )
        low, high = (LABELS + end * SCALE for end in (row.left.low, row.left.high))
        parts.append(f'<path d="M{low:.1f} {y + 7}H{high:.1f}M{low:.1f} {y + 3}v8M{high:.1f} {y + 3}v8" class="ci"/>')
        parts.append(f'<text x="{WIDTH - 50}" y="{y + 12}">{row.left.value:.1%}</text>')
    return _svg(height, parts, "What each attack left right")


def curve(points: Sequence[tuple[float, float]], unit: str) -> str:
    """The share left over the bound."""
    height, reach = 240, max(eps for eps, _ in points) or 1.0
    spots = [(60 + eps / reach * (WIDTH - 100), 200 - share * 180) for eps, share in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    parts = [f'<path d="M60 {y}H{WIDTH - 40}" class="grid"/>' for y in (20, 65, 110, 155, 200)]
    parts += [
        f'<text x="52" y="{204 - share * 180:.0f}" text-anchor="end">{share:.0%}</text>' for share in (0, 0.5, 1.0)
    ]
    parts.append(f'<polyline points="{line}" fill="none" stroke="#c0392b" stroke-width="2"/>')
    for (x, y), (eps, share) in zip(spots, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#c0392b"><title>{share:.1%}</title></circle>')
        parts.append(f'<text x="{x:.1f}" y="220" text-anchor="middle">{_eps(eps, unit)}</text>')
    return _svg(height, parts, "What the adaptive attack leaves at several bounds")


def lines(series: Sequence[tuple[str, str, Sequence[float]]], title: str, *, percent: bool) -> str:
    """Values over iterations, a line for each (knowledge, name, values)."""
    top = 1.0 if percent else max(max(values) for _, _, values in series) or 1.0
    last = max(len(values) for _, _, values in series) - 1 or 1
    parts = [f'<path d="M60 {y}H{WIDTH - 40}" class="grid"/>' for y in (20, 65, 110, 155, 200)]
    ticks = ((share, f"{share:.0%}" if percent else f"{share * top:.3g}") for share in (0, 0.5, 1.0))
    parts += [f'<text x="52" y="{204 - share * 180:.0f}" text-anchor="end">{text}</text>' for share, text in ticks]
    for number, (knowledge, name, values) in enumerate(series):
        spots = " ".join(
            f"{60 + at / last * (WIDTH - 100):.1f},{200 - value / top * 180:.1f}" for at, value in enumerate(values)
        )
        dash = f' stroke-dasharray="{2 + 3 * number}"' if number > 1 else ""
        line = f'<polyline points="{spots}" fill="none" stroke="{COLOURS[knowledge]}" stroke-width="2"{dash}>'
        parts.append(f"{line}<title>{escape(name)}</title></polyline>")
        x = 60 + number * (WIDTH - 100) / len(series)
        parts.append(f'<text x="{x:.0f}" y="238" fill="{COLOURS[knowledge]}">{escape(name)}</text>')
    parts += [f'<text x="60" y="220">1</text><text x="{WIDTH - 40}" y="220" text-anchor="end">{last + 1}</text>']
    return f"<p>{escape(title.capitalize())}</p>{_svg(250, parts, title)}"


def example(clean: Pixels, found: Pixels) -> str:
    """A frame, what was found near it, and their difference, magnified, as pictures."""
    difference = np.clip(128 + MAGNIFIED * (found.astype(np.int16) - clean), 0, 255).astype(np.uint8)
    return "".join(
        f'<figure><img alt="{name}" src="{_png(pixels)}"><figcaption>{name}</figcaption></figure>'
        for name, pixels in (("clean", clean), ("found", found), (f"difference × {MAGNIFIED}", difference))
    )


def _grid(height: int) -> str:
    ticks = [(LABELS + share * SCALE, share) for share in (0, 0.25, 0.5, 0.75, 1.0)]
    lines = "".join(f"M{x:.1f} 0V{height - 24}" for x, _ in ticks)
    names = "".join(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{s:.0%}</text>' for x, s in ticks)
    return f'<path d="{lines}" class="grid"/>{names}'


def _svg(height: int, parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _eps(eps: float, unit: str) -> str:
    return f"{eps * 255:g}/255" if unit == "linf" else f"{eps:.3g}"


def _png(pixels: Pixels) -> str:
    file, image = BytesIO(), Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    scale = max(1, 192 // max(image.size))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
