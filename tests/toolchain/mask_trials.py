"""What every mask is tried on, and with which parameters: they follow from its own declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgemask.params import describe
from edgemask.steps import Mask, parse_step, registry
from edgemask_runtime.entropy import expand

from .harness import Array
from .pictures import cropped, load, spec_of

SEED = bytes(range(32))
SMALL = arrays(np.uint8, st.tuples(st.just(1), *[st.integers(1, 20)] * 2, st.sampled_from([1, 3])))
EDGES = arrays(np.uint8, (1, 16, 16, 3), elements=st.sampled_from([0, 1, 127, 128, 254, 255]))
PICTURES = {
    "coffee 224x224": load("coffee.png"),
    "rocket 91x113": cropped("rocket.jpg", 91, 113),
    "gravel 150x224 gray": cropped("gravel.png", 150, 224),
    "galaxies 1x1": cropped("galaxies.png", 1, 1),
}


def settings_of(cls: type[Mask]) -> Iterator[str]:
    """The mask as it comes, then each parameter alone at its bounds and choices."""
    yield cls.kind
    for parameter in describe(cls):
        for value in _values(parameter):
            if value != parameter.get("default"):
                yield f"{cls.kind}:{parameter['name']}={value}"


def _values(parameter: dict[str, Any]) -> list[Any]:
    return [*parameter.get("choices", ()), *(parameter[end] for end in ("low", "high") if end in parameter)]


MASKS = {cls.kind: cls for cls in registry().values() if issubclass(cls, Mask)}
SETTINGS = [text for cls in MASKS.values() for text in settings_of(cls)]


def mask_of(text: str) -> Mask:
    """A mask from its text."""
    step = parse_step(text, ("mask",))
    assert isinstance(step, Mask)
    return step


def entropy_for(mask: Mask, frames: Array, seed: bytes = SEED) -> Array | None:
    """The bytes of entropy, or of a key, that the mask needs for these frames, from a fixed seed."""
    count = mask.entropy_bytes(spec_of(frames[0])) + mask.key_bytes(spec_of(frames[0]))
    return expand(seed, count * len(frames)).reshape(len(frames), count) if count else None
