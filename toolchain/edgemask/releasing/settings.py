"""The settings that a release brings: the target's own, or its owner's, checked as the device would check them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomllib

from edgemask.errors import UserError
from edgemask.releasing.programs import edgemaskd
from edgemask.target import Target
from edgemask_runtime.bundle import SUFFIX, Bundle
from edgemask_runtime.files import read_bytes
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.release import MODELS, SETTINGS

MAX_BYTES = 1 << 20
ANSWERS = "/var/lib/edgemask/answers.jsonl"
KEYS = "/etc/edgemask"
EXTRAS = {"can": "can", "mqtt": "mqtt", "snapshots": "images", "stream": "video", "video": "video", "folder": "images"}
"""The extra of edgemask-runtime that a kind of source or sink needs."""
HEAD = """\
# Settings of {name} for {target}; docs/formats.md says what each key means. A file of your own in its place,
# /etc/edgemask/edgemaskd.toml, names the models as /opt/edgemask/current/{models}NAME.edgemask.
schema = 1

[http]
listen = "127.0.0.1:8700"
"""
MODEL = """
[[models]]
name = {name}
bundle = {bundle}
"""
PIPELINE = """
[[pipelines]]
name = {name}
model = {name}

[pipelines.source]
kind = {camera}

[[pipelines.sinks]]
kind = "jsonl"
path = "{answers}"
max_mb = 16
"""
CAN_SINK = """
[[pipelines.sinks]]
kind = "can"
channel = "can0"
"""


def model_file(name: str) -> str:
    """Where the bundle of that name lies in a release, and relative to its settings."""
    return f"{MODELS}{name}{SUFFIX}"


def default_settings(target: Target, manifests: Sequence[Manifest]) -> str:
    """The target's camera into the first model, whose answers go to a file and, if it may, to a CAN bus."""
    main = manifests[0]
    parts = [HEAD.format(name=main.name, target=target.name, models=MODELS)]
    parts += [_model(manifest) for manifest in manifests]
    camera = json.dumps(target.camera.kind)
    parts.append(PIPELINE.format(name=json.dumps(main.name), camera=camera, answers=ANSWERS))
    parts += [CAN_SINK] if main.can else []
    return "".join(parts)


def key_file(manifest: Manifest) -> str | None:
    """Where the default settings look for the key of a bundle that takes one."""
    needed = manifest.key is not None and not manifest.key.published
    return f"{KEYS}/{manifest.name}.key" if needed else None


def read_settings(path: Path) -> str:
    """The text of the owner's own file."""
    if path.suffix != ".toml":
        raise UserError(f"{path}: not a .toml file", "a release brings its settings as TOML: docs/formats.md")
    try:
        return read_bytes(path, limit_bytes=MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error


def check_settings(text: str, where: str, bundles: Mapping[str, Bundle]) -> None:
    """Let edgemaskd check the text where the bundles lie as in the release; UserError names every fault in `where`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / MODELS).mkdir()
        for key, bundle in bundles.items():
            (folder / model_file(key)).symlink_to(bundle.path.absolute())
        (folder / SETTINGS).write_text(text, encoding="utf-8")
        try:
            edgemaskd(["check", str(folder / SETTINGS)])
        except UserError as error:
            message = error.message.replace(str(folder / SETTINGS), where).replace(f"{folder}/", "")
            files = ", ".join(model_file(key) for key in bundles)
            hint = f"paths are those in the release: {files}; {error.hint or ''}".rstrip("; ")
            raise UserError(message, hint) from error


def extras_of(text: str) -> set[str]:
    """The extras of edgemask-runtime that checked settings need."""
    values = tomllib.loads(text)
    parts = [part for pipeline in values.get("pipelines", ()) for part in _parts(pipeline)]
    needed = {EXTRAS[part["kind"]] for part in parts if part["kind"] in EXTRAS}
    # Why images: the page shows pictures, and clients may send them.
    return needed | {extra for door, extra in (("http", "images"), ("grpc", "grpc")) if door in values}


def _parts(pipeline: dict[str, Any]) -> list[dict[str, Any]]:
    return [pipeline["source"], *pipeline.get("sinks", ())]


def _model(manifest: Manifest) -> str:
    text = MODEL.format(name=json.dumps(manifest.name), bundle=json.dumps(model_file(manifest.name)))
    key = key_file(manifest)
    return f"{text}key = {json.dumps(key)}\n" if key else text
