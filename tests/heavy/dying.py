"""An attack whose process dies at its first try; processes import it by name."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.auditing.attacks.auto import Apgd


@dataclass(frozen=True)
class Dying(Apgd):
    """Auto-PGD that first says who it is, in the pipe `folder`/pid, and waits to be killed."""

    folder: str = ""

    def search(self, *given: Any) -> Any:
        if first(Path(self.folder) / "begun"):
            (Path(self.folder) / "pid").write_text(str(os.getpid()))
            signal.pause()
        return super().search(*given)


def first(path: Path) -> bool:
    """Whether nobody came before."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class Deadly(Apgd):
    """Every process that tries it dies."""

    def search(self, *given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
