"""What an audit found of a file, as builds and policies read it: plain data, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from edgemask.auditing.threat import Threat
from edgemask.auditing.verdict import Verdict
from edgemask.errors import Faults, UserError, structure
from edgemask.metrics.intervals import Figure
from edgemask_runtime.files import read_bytes
from edgemask_runtime.strict_json import parse

Budget = Literal["quick", "standard", "full"]
JSON = "audit.json"
DEFAULT_FOLDER = Path("build/audit")
MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class Finding:
    """The verdict with all that it holds for; figures are shares of n images with their 95 % intervals.

    `sha256`: of the file. `knows`: what the attackers knew. `least`: the share that had to be left for EMPIRICAL.
    """

    schema: Literal[1]
    edgemask: str
    name: str
    sha256: str
    engine: str
    budget: Budget
    threat: Threat
    bound_on: str
    knows: tuple[str, ...]
    n: int
    classes: int
    clean: Figure
    naive: Figure | None
    adaptive: Figure | None
    worst: Figure
    least: float
    verdict: Verdict
    no_gradient: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        left = f"{self.worst.value:.1%} ({self.worst.low:.1%} to {self.worst.high:.1%}) of {self.n} images"
        return (
            f"gradient {self.verdict.gradient}, robustness {self.verdict.robustness}: "
            f"{left} stay right at {self.threat}, budget {self.budget}"
        )


def finding_of(values: Any, where: str) -> Finding:
    """What audit.json says, less its tables; UserError when it is no such file."""
    faults = Faults(where)
    names = [field.name for field in fields(Finding)]
    kept = {name: values[name] for name in names if name in values} if isinstance(values, dict) else values
    found: Finding | None = structure(Finding, kept, "$", faults)
    if found is None or faults:
        raise faults.error("`edgemask audit` writes it; audit again")
    return found


def read_finding(path: Path) -> Finding:
    """The finding in audit.json, or in a folder that holds one."""
    file = path / JSON if path.is_dir() else path
    text = read_bytes(file, limit_bytes=MAX_BYTES).decode("utf-8", "replace")
    return finding_of(parse(text, str(file)), str(file))


class Findings:
    """The audits that a build is given, or that of the usual folder, by the digest of the file that each is of."""

    def __init__(self, given: Sequence[Path]) -> None:
        self._given = {read_finding(path): path for path in given}
        self._used: set[str] = set()
        self._usual = None if given else _usual()

    def of(self, sha256: str) -> Finding | None:
        """The one of the file with this digest."""
        self._used.add(sha256)
        usual = [self._usual] if self._usual else []
        return next((found for found in (*self._given, *usual) if found.sha256 == sha256), None)

    def require_used(self) -> None:
        """UserError for an audit of a file that was not asked for."""
        for found, path in self._given.items():
            if found.sha256 not in self._used:
                raise UserError(
                    f"{path} is an audit of another file: {found.name}, sha256 {found.sha256}",
                    "audit the recipe as it is built now: another model, recipe, precision, published key or version "
                    "of edgemask makes another file",
                )


def _usual() -> Finding | None:
    """What the last audit left here, if it can be read."""
    try:
        return read_finding(DEFAULT_FOLDER) if (DEFAULT_FOLDER / JSON).is_file() else None
    except UserError:
        return None
