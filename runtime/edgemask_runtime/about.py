"""What a served model's clients know of it, and outputs that say which model gave them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgemask_runtime.answers import Reading, read_outputs
from edgemask_runtime.engines import Array, EngineInfo
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.recognised import read_recognised
from edgemask_runtime.strict_json import Faults, parse, structure


@dataclass(frozen=True)
class About:
    """A served model: `manifest` states all outputs, `digest` is the bundle's, `engine` what runs it.

    `recogniser` is the manifest of the model that gets the crops, if there is one: its outputs are among `manifest`'s.
    """

    manifest: Manifest
    digest: str
    engine: EngineInfo
    recogniser: Manifest | None = None
    schema: Literal[1] = 1

    def read(self, outputs: Mapping[str, Array], row: int = 0) -> Reading:
        """What row `row` of its outputs means."""
        if self.recogniser is None:
            return read_outputs(self.manifest, outputs, row)
        return read_recognised(self.manifest, self.recogniser, outputs, row)

    def to_json(self) -> str:
        """The text that crosses to a client."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> About:
        """Read the text again; UserError when it was written by another version."""
        faults = Faults(where)
        about: About | None = structure(cls, parse(text, where), "$", faults)
        if about is None or faults:
            raise faults.error("the program and the daemon are of different versions: install both again")
        return about


class Outputs(dict[str, Array]):
    """Every output by name. `about` is the model that gave them: after a reload the next answer may be another's."""

    def __init__(self, values: Mapping[str, Any], about: About) -> None:
        super().__init__(values)
        self.about = about

    def read(self, row: int = 0) -> Reading:
        """What row `row` means, by the model that gave it."""
        return self.about.read(self, row)
