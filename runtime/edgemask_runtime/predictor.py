"""A bundle on its engine: frames in, outputs out, with fresh entropy for every frame and the device's own key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.bundle import Bundle, EntropyInput, Manifest, payload_digest
from edgemask_runtime.engines import ENGINES, Array, Engine, EngineInfo, engines_for, open_engine
from edgemask_runtime.entropy import draw_seed, expand
from edgemask_runtime.errors import UserError, unknown
from edgemask_runtime.formats import Pixels
from edgemask_runtime.keys import read_key
from edgemask_runtime.probe import replay

log = logging.getLogger("edgemaskd")


class Served(Protocol):
    """What the frames of cameras and clients are given to; `manifest` states all outputs, `digest` is the bundle's."""

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""

    @property
    def digest(self) -> str:
        """The bundle's."""

    @property
    def engine(self) -> EngineInfo:
        """What runs it."""

    @property
    def about(self) -> About:
        """All three, as clients are told them."""

    def predict(self, frames: Pixels) -> Outputs:
        """Run uint8 [N, height, width, channels] and return every output by name, and whose they are.

        Of a model that was reloaded meanwhile `Outputs.about` states the digest and reads the outputs, not this.
        ModelDown while the model is being restarted; it is worth asking again, but not for this frame.
        """

    def begin(self, frames: Pixels) -> Callable[[], Outputs]:
        """Ask as `predict` does, and return what waits for the outputs: other frames can be made ready meanwhile."""


class Predictor:
    """The one way to the engine; a lock keeps the camera and the HTTP clients from entering it at once.

    `inference_s` is what a batch took when the probe was replayed.
    """

    inference_s = 0.0

    def __init__(self, manifest: Manifest, engine: Engine, key: bytes | None = None) -> None:
        _check_graph(manifest, engine)
        self.about = About(manifest, payload_digest(manifest), engine.info)
        self.manifest, self.digest, self.engine = manifest, self.about.digest, engine.info
        self._engine = engine
        self._key = None if key is None else np.frombuffer(key, np.uint8)
        self._entered = Lock()

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        engine: str | None = None,
        threads: int = 1,
        key: Path | None = None,
        cache: Path | None = None,
    ) -> Predictor:
        """Load the bundle's model on its engine, or on another one of the same format, and replay its probe.

        `key` is the file of the key, for a bundle that takes one; `cache` a folder for what a GPU's engine builds.
        """
        manifest = bundle.manifest
        secret = required_key(manifest, key)
        name = _chosen_engine(manifest, engine)
        model = bundle.read(manifest.model.file)
        opened = open_engine(name, model, threads=threads, providers=manifest.providers, cache=cache)
        predictor = cls(manifest, opened, secret)
        replayed = replay(manifest, predictor._engine, bundle.evidence, str(bundle.path))
        predictor.inference_s = replayed.inference_s
        log.info("%s: probe: %s", manifest.name, replayed.compared)
        return predictor

    def predict(self, frames: Pixels) -> Outputs:
        """Run uint8 [N, height, width, channels] and return every output by name."""
        feeds: dict[str, Array] = {self.manifest.frame.name: frames}
        if entropy := self.manifest.entropy:
            feeds[entropy.name] = _draw(entropy, len(frames))
        if self.manifest.key and self._key is not None:
            feeds[self.manifest.key.name] = np.tile(self._key, (len(frames), 1))
        with self._entered:
            return Outputs(self._engine.run(feeds), self.about)

    def begin(self, frames: Pixels) -> Callable[[], Outputs]:
        """Return what runs them: here nobody else could."""
        return partial(self.predict, frames)


def takes_key(manifest: Manifest) -> bool:
    """Whether the device must bring a key."""
    return manifest.key is not None and not manifest.key.published


def required_key(manifest: Manifest, path: Path | None) -> bytes | None:
    """The key in the file at `path`; None for a bundle that takes none. UserError when one of them lacks the other."""
    takes = manifest.key if takes_key(manifest) else None
    if path is None and takes:
        hint = (
            "--key FILE: the key that the model was trained with (`edgemaskd new-key BUNDLE -o FILE` makes a new one)"
        )
        raise UserError(f"{manifest.name} needs its key of {takes.bytes} bytes", hint)
    if path is not None and not takes:
        raise UserError(f"{manifest.name} takes no key", hint="leave --key out")
    return read_key(path, takes.bytes) if path and takes else None


def _draw(entropy: EntropyInput, rows: int) -> Pixels:
    return np.stack([expand(draw_seed(), entropy.bytes, entropy.generator) for _ in range(rows)])


def _chosen_engine(manifest: Manifest, wanted: str | None) -> str:
    if wanted is None:
        return manifest.engine
    if wanted not in ENGINES:
        raise unknown("engine", wanted, ENGINES)
    if ENGINES[wanted].format != manifest.model.format:
        hint = f"use {' or '.join(engines_for(manifest.model.format))}"
        raise UserError(f"engine {wanted!r} does not run {manifest.model.format}", hint)
    return wanted


def _check_graph(manifest: Manifest, engine: Engine) -> None:
    """Refuse a graph that does not take and give what the manifest states."""
    frame, entropy = manifest.frame, manifest.entropy
    stated: dict[str, tuple[int | None, ...]] = {frame.name: (frame.batch, *frame.shape)}
    if entropy:
        stated[entropy.name] = (frame.batch, entropy.bytes)
    if manifest.key and not manifest.key.published:
        stated[manifest.key.name] = (frame.batch, manifest.key.bytes)
    found = {info.name: info.shape for info in engine.inputs if info.dtype == "uint8"}
    if found != stated or len(found) < len(engine.inputs):
        raise _contradiction("takes", ", ".join(map(str, engine.inputs)))
    if {info.name for info in engine.outputs} != {record.name for record in manifest.outputs}:
        raise _contradiction("gives", ", ".join(map(str, engine.outputs)))


def _contradiction(verb: str, found: str) -> UserError:
    return UserError(
        f"the bundle's model {verb} {found}, which its manifest does not state", hint="build the bundle again"
    )
