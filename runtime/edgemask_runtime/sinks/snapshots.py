"""Pictures of what mattered, each with its answer, in a folder that stays within its bounds."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from edgemask_runtime.answers import Answer
from edgemask_runtime.errors import UserError
from edgemask_runtime.files import write_atomic
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import wall_clock
from edgemask_runtime.images import encoded_picture, picture_of
from edgemask_runtime.labels import Guess
from edgemask_runtime.sinks import ENDED, STOPPING, SinkContext
from edgemask_runtime.strict_json import Rule, between

BYTES_PER_MB = 1_000_000
When = Literal["suspicious", "labels", "invalid", "always"]
_SOME = Rule("one of them or more", bool).metadata


@dataclass(frozen=True)
class SnapshotSettings:
    """Where, when (`labels`: when one of these has `min_score` or more), how often at most, and how much is kept.

    Above `max_mb`, and while the disk has less than `min_free_mb` left, the oldest of our pictures go first.
    """

    folder: Path
    when: tuple[When, ...] = field(default=("suspicious",), metadata=_SOME)
    labels: tuple[str, ...] = ()
    min_score: float = field(default=0.0, metadata=between(0, 1))
    every_s: float = field(default=1.0, metadata=between(0, 86_400))
    max_mb: float = field(default=100.0, metadata=between(0.01, 1_000_000))
    min_free_mb: float = field(default=100.0, metadata=between(0, 1_000_000))
    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = field(default=90, metadata=between(1, 100))


class Snapshots:
    """Writes a picture of the frame and, when it lies there whole, the JSON that belongs to it."""

    Settings = SnapshotSettings
    wants_pixels = True

    def __init__(self, settings: SnapshotSettings, context: SinkContext) -> None:
        if ("labels" in settings.when) != bool(settings.labels):
            raise UserError('snapshots: `when` has "labels" and `labels` is empty, or the other way round')
        # A missing encoder is found now, and not when something happens.
        encoded_picture(np.zeros((1, 1, 1), np.uint8), settings.format)
        self._settings, self._context = settings, context
        self._kept = _Kept(settings, context.pipeline)
        self._last_s: float | None = None
        self._shown: tuple[Answer, Pixels] | None = None

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Keep the frame if it is one of those asked for, and not too soon after the last one."""
        if pixels is None:
            return
        self._shown = (answer, pixels)
        why = next(self._reasons(answer), None)
        if why and self._is_due():
            self._keep(answer, pixels, {"reason": why, **answer.flat()})

    def invalidate(self, reason: str) -> None:
        """Keep the last frame that had an answer, if that is asked for."""
        shown, self._shown = self._shown, None
        if reason in (STOPPING, ENDED):
            return
        if shown and "invalid" in self._settings.when and self._is_due():
            told = {"reason": "invalid", "invalid": reason, "at": wall_clock(), "last": shown[0].flat()}
            self._keep(*shown, told)

    def close(self) -> None:
        """Hold nothing open."""

    def _reasons(self, answer: Answer) -> Iterator[str]:
        wanted = self._settings.when
        if "suspicious" in wanted and answer.reading.suspicious:
            yield "suspicious"
        if "labels" in wanted and self._is_called(answer):
            yield "labels"
        if "always" in wanted:
            yield "always"

    def _is_called(self, answer: Answer) -> bool:
        settings, found = self._settings, answer.reading.detections or ()
        inside = (guess for detection in found for guess in (detection.recognised or ())[:1])
        named: tuple[Any, ...] = (*answer.reading.top[:1], *found, *inside)
        return any(_scored(one, settings.min_score) and one.label in settings.labels for one in named)

    def _is_due(self) -> bool:
        return self._last_s is None or time.monotonic() - self._last_s >= self._settings.every_s

    def _keep(self, answer: Answer, pixels: Pixels, told: dict[str, Any]) -> None:
        settings, frame = self._settings, self._context.manifest.frame
        # Before the attempt, so that a disk that is full is not asked again with every frame.
        self._last_s = time.monotonic()
        picture = encoded_picture(picture_of(pixels, frame), settings.format, settings.quality)
        self._kept.add(f"{_compact(answer.captured_at)}-{answer.frame}", picture, told)


class _Snapshot(NamedTuple):
    stem: str
    size: int


class _Kept:
    """The snapshots of one pipeline in the folder, oldest first; files that others put there are let alone."""

    def __init__(self, settings: SnapshotSettings, pipeline: str) -> None:
        self._folder, self._pipeline = settings.folder, pipeline
        self._suffix = ".jpg" if settings.format == "jpeg" else ".png"
        self._limit = int(settings.max_mb * BYTES_PER_MB)
        self._left = int(settings.min_free_mb * BYTES_PER_MB)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be made a folder: {error.strerror}") from error
        self._snapshots = deque(self._found())

    def add(self, stem: str, picture: bytes, told: dict[str, Any]) -> None:
        """Write both files, after room was made for them; UserError, and neither of them, when there is none."""
        name = f"{self._pipeline}-{stem}"
        text = orjson.dumps({"picture": name + self._suffix, **told}, option=orjson.OPT_INDENT_2)
        size = len(picture) + len(text)
        self._make_room(size)
        try:
            write_atomic(self._folder / (name + self._suffix), picture)
            write_atomic(self._folder / f"{name}.json", text)
        except UserError:
            self._remove(name)
            raise
        self._snapshots.append(_Snapshot(name, size))

    def _make_room(self, size: int) -> None:
        """Remove the oldest, but none where all of them would not do."""
        held, free = sum(kept.size for kept in self._snapshots), self._free()
        if size > self._limit:
            raise UserError(f"{self._folder}: a snapshot of {size} bytes is more than max_mb allows")
        if size > free + held:
            raise UserError(f"{self._folder}: the disk is full: less than min_free_mb would be left")
        while size > min(self._limit - held, free):
            oldest = self._snapshots.popleft()
            self._remove(oldest.stem)
            held, free = held - oldest.size, free + oldest.size

    def _free(self) -> int:
        """Bytes that we may still use; below 0 where others use what should be left."""
        try:
            room = os.statvfs(self._folder)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot write: {error.strerror}") from error
        return room.f_bavail * room.f_frsize - self._left

    def _remove(self, stem: str) -> None:
        for suffix in (".json", ".jpg", ".png"):
            with suppress(OSError):
                (self._folder / f"{stem}{suffix}").unlink()

    def _found(self) -> list[_Snapshot]:
        """What an earlier run left, oldest first; what it left half-written is removed."""
        ours = re.compile(rf"({re.escape(self._pipeline)}-\d{{8}}T\d{{9}}Z-\d+)\.(jpg|png|json)")
        times: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for path in self._folder.iterdir():
            half = path.suffix == ".part" and ours.match(path.name[1:])
            if half:
                path.unlink()
            elif match := ours.fullmatch(path.name):
                stem, state = match[1], path.stat()
                times[stem] = max(times.get(stem, 0.0), state.st_mtime)
                sizes[stem] = sizes.get(stem, 0) + state.st_size
        return [_Snapshot(stem, sizes[stem]) for stem in sorted(times, key=lambda stem: times[stem])]


def _scored(one: Guess, least: float) -> bool:
    return least == 0 or (one.score is not None and one.score >= least)


def _compact(moment: str) -> str:
    return re.sub(r"[-:.]", "", moment)
