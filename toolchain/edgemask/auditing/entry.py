"""Where the attacker's bound lies: on the chain's first picture, whatever the camera delivers before it.

Why not on the camera's own bytes: a bound on nv12 is none on a picture, and most pictures near a decoded one are no
nv12 at all, as four pixels share one colour. So what decodes is left out in front, and it is checked, on every frame
there is, that the rest answers the picture as the whole file answers the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgemask.artefact import Artefact
from edgemask.auditing.shipped import Shipped, classes_of
from edgemask.baking import Plan, grafted
from edgemask.chain import Chain
from edgemask.errors import UserError
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.protocol import Array
from edgemask.spec import Spec
from edgemask.suggest import chain_around
from edgemask_runtime.formats import Pixels

PICTURES = ("gray", "rgb", "bgr")
AT_ONCE = 16
NEAR = 1e-5


@dataclass(frozen=True)
class Entry:
    """The plan from the first picture on, and what comes before: no links where the camera delivers pictures."""

    plan: Plan
    artefact: Artefact
    decoding: Chain
    whole: Artefact

    @property
    def place(self) -> str:
        """Where the bound lies, in words."""
        if not self.decoding.links:
            return "the frame"
        link = self.decoding.links[-1]
        return f"the picture that step {link.index} ({link.step.kind}) gives, {link.gives}"

    def pictures(self, frames: Pixels, key: bytes | None) -> Pixels:
        """The frames as pictures; UserError unless the rest answers these as the whole file answers the frames."""
        if not self.decoding.links:
            return frames
        made = np.concatenate([self._decoded(frames[at : at + AT_ONCE]) for at in range(0, len(frames), AT_ONCE)])
        self._check(frames, made, key)
        return made

    def _decoded(self, frames: Pixels) -> Pixels:
        def ends(x: Array) -> dict[str, Array]:
            return {"picture": x}

        made: Pixels = self.decoding.run(NumpyOps(), frames, None, ends)["picture"].astype(np.uint8)
        return made

    def _check(self, frames: Pixels, pictures: Pixels, key: bytes | None) -> None:
        classes, key = classes_of(self.plan.source), key if self.plan.chain.key_bytes else None
        whole, rest = (Shipped(artefact, classes, key) for artefact in (self.whole, self.artefact))
        want, have = whole.answers(frames, 0), rest.answers(pictures, 0)
        if not np.allclose(have, want, rtol=NEAR, atol=NEAR):
            raise UserError(
                f"from {self.place} on the file answers otherwise than the whole of it",
                "put the step that decodes in front of all others",
            )


def entry_of(made: Plan, artefact: Artefact) -> Entry:
    """Where the chain's first picture is; UserError when there is none."""
    chain, recipe = made.chain, made.recipe
    specs = [chain.frame, *(link.gives for link in chain.links)]
    at = next((i for i, spec in enumerate(specs) if _is_picture(spec)), None)
    if at is None:
        raise UserError(f"{recipe.name} takes {recipe.frame.colour} frames, and no step makes a picture of them")
    decoding = Chain(chain.frame, chain.links[:at], (), (), {})
    if not at:
        return Entry(made, artefact, decoding, artefact)
    behind = replace(recipe, frame=specs[at].camera, steps=recipe.steps[at:])
    rest = replace(made, recipe=behind, chain=chain_around(made.source, behind))
    return Entry(rest, grafted(rest), decoding, artefact)


def _is_picture(spec: Spec) -> bool:
    return spec.is_image and spec.dtype == "uint8" and spec.colour in PICTURES
