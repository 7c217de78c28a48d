"""Masks under the names of the papers that set them up: `--mask xie2018`."""

from __future__ import annotations

from edgemask.steps import Map, Role, Wrap, parse_step

PRESETS: dict[str, tuple[str, ...]] = {
    "feature-squeezing": ("feature-squeeze:squeezer=bit-depth:bits=5+median:size=2+non-local-means",),
    "dziugaite2016": ("jpeg:quality=75,subsampling=4:2:0",),
    "das2018": ("shield",),
    "xie2018": ("random-resize-pad",),
    "guo2018": ("pixel-drop",),
    "prakash2018": ("pixel-deflection",),
    "buckman2018": ("thermometer",),
    "liu2019": ("distillation-jpeg",),
    "raff2019": ("bart",),
}
"""A name and its steps, in order; the steps' own defaults are those of their papers."""


def expand(text: str, roles: tuple[Role, ...]) -> list[Map | Wrap]:
    """The steps that a text names: a preset's, or the one step that it spells out."""
    steps = [parse_step(part, roles) for part in PRESETS.get(text, (text,))]
    return [step for step in steps if isinstance(step, Map | Wrap)]
