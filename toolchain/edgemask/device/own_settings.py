"""The owner's settings for a card, checked here: on a board that starts by itself nobody sees what is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tomllib

from edgemask.errors import UserError
from edgemask.releasing.settings import check_settings, read_settings
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.release import Release

INSTALLED = "/opt/edgemask/current/"


def check_own_settings(path: Path, release: Release) -> None:
    """UserError for settings that the release's daemon would not start with in /etc/edgemask."""
    text = read_settings(path)
    with tempfile.TemporaryDirectory() as folder:
        bundles = {name: _bundle(release, name, Path(folder)) for name in release.manifest.models}
        check_settings(text.replace(INSTALLED, ""), str(path), bundles)
    for index, model in enumerate(tomllib.loads(text).get("models", ())):
        if not str(model["bundle"]).startswith("/"):
            hint = f'on the board the file is /etc/edgemask/edgemaskd.toml: "{INSTALLED}{model["bundle"]}"'
            raise UserError(f"{path}: $.models[{index}].bundle: value {model['bundle']!r}; allowed: a whole path", hint)


def _bundle(release: Release, name: str, folder: Path) -> Bundle:
    copy = folder / f"{name}.edgemask"
    copy.write_bytes(release.read(release.manifest.models[name].file))
    return Bundle.open(copy)
