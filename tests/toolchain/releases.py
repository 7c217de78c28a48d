"""Releases without a package index: whole wheels of a few bytes in place of those that would be fetched."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from edgemask.target import Target

METADATA = "Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{licence}\n"
LICENCES = {
    "numpy": "License-Expression: BSD-3-Clause",
    "orjson": "License-Expression: Apache-2.0 OR MIT",
    "cryptography": "Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: BSD License",
    "pillow": "License: The words of a licence\n  that goes on for pages",
    "cantools": "",
}


class Wheelhouse:
    """What stands in for the fetching of wheels, and what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, tuple[str, ...], bool]] = []
        self.fault: BaseException | None = None
        self.bytes = 1000

    def wheels_for(
        self,
        target: Target,
        python: str,
        wanted: Iterable[str] = (),
        *,
        offline: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> list[Path]:
        """As `edgemask.wheels.wheels_for`."""
        self.asked.append((target.name, python, tuple(wanted), offline))
        progress("numpy 1.0 (1 of 5)")
        if self.fault:
            raise self.fault
        return sorted(self._made(name, python) for name in LICENCES)

    def _made(self, name: str, python: str) -> Path:
        tag = f"cp{python.replace('.', '')}" if name == "numpy" else "py3"
        path = self.folder / f"{name}-1.0-{tag}-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            about = METADATA.format(name=name, licence=LICENCES[name])
            archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/METADATA"), about)
            archive.writestr(zipfile.ZipInfo(f"{name}.py"), b"#" * self.bytes)
        return path
