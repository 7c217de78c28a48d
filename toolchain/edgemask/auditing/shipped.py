"""The file that ships, on its own engine: what an attacker without gradients sees, and where all is judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemask.artefact import Artefact
from edgemask.errors import UserError
from edgemask.models import Model
from edgemask_runtime.bundle import OutputRecord
from edgemask_runtime.formats import Pixels

Labels = NDArray[np.int64]
BATCH = 64
CLASSIFIES = ("probabilities", "top-indices", "raw")


class Shipped:
    """An artefact whose answer is a class; `classes` is how many the model tells apart.

    `draw`: which bytes of entropy the frames get; the same number gives the frame at each place the same bytes.
    `sha256`: of the file that ships, where this one is cut out of it.
    """

    def __init__(self, artefact: Artefact, classes: int, key: bytes | None = None, sha256: str | None = None) -> None:
        self._engine = artefact.model.open()
        self._label = artefact.label
        self._key = None if key is None else np.frombuffer(key, np.uint8)
        self._scores, self._best = _outputs(artefact)
        by_name = {info.name: info.quantisation for info in self._engine.outputs}
        self._quantisation = by_name.get(self._scores or "")
        self.is_random = artefact.label.entropy is not None
        self.engine_name = str(self._engine.info)
        self.sha256 = sha256 or artefact.model.sha256
        self.classes = classes

    @property
    def gives_scores(self) -> bool:
        """Whether it tells a score for every class, and not only the best."""
        return self._scores is not None

    def labels(self, frames: Pixels, draw: int) -> Labels:
        """The class of each frame."""
        if self._best is not None:
            best = self._run(frames, draw, self._best)
            return best.reshape(len(frames), -1)[:, 0].astype(np.int64)
        labels: Labels = np.argmax(self.scores(frames, draw), axis=1)
        return labels

    def scores(self, frames: Pixels, draw: int) -> NDArray[np.float32]:
        """The score of every class, [N, classes], as the file gives them; quantised ones as real numbers."""
        if self._scores is None:
            raise UserError("the file gives no score for every class")
        given = self._run(frames, draw, self._scores).reshape(len(frames), -1).astype(np.float32)
        return real(given, self._quantisation)

    def answers(self, frames: Pixels, draw: int) -> NDArray[np.generic]:
        """The scores, or the best classes of a file that gives no scores."""
        return self._run(frames, draw, self._scores or self._best or "")

    def _run(self, frames: Pixels, draw: int, output: str) -> NDArray[np.generic]:
        batch = self._label.frame.batch or BATCH
        made = [self._batch(frames[at : at + batch], draw, at, output) for at in range(0, len(frames), batch)]
        return np.concatenate(made)

    def _batch(self, frames: Pixels, draw: int, at: int, output: str) -> NDArray[np.generic]:
        count, full = len(frames), self._label.frame.batch or len(frames)
        padded = np.concatenate([frames, np.repeat(frames[-1:], full - count, 0)]) if full > count else frames
        feeds: dict[str, NDArray[np.generic]] = {"frame": padded}
        if self._label.entropy:
            source = np.random.default_rng((draw, at))
            feeds["entropy"] = source.integers(0, 256, (full, self._label.entropy.bytes), np.uint8)
        if self._key is not None:
            feeds["key"] = np.tile(self._key, (full, 1))
        return self._engine.run(feeds)[output][:count]


def real(scores: NDArray[np.float32], quantisation: tuple[float, int] | None) -> NDArray[np.float32]:
    """Scores as real numbers; `quantisation` is their scale and zero point, if they are quantised."""
    if quantisation is None:
        return scores
    scale, zero_point = quantisation
    return (scores - np.float32(zero_point)) * np.float32(scale)


def classes_of(source: Model) -> int:
    """How many classes the model's last output tells apart; UserError when it is no classifier."""
    sizes = [size for size in source.outputs[-1].shape[1:] if size != 1] if source.outputs else []
    if len(sizes) != 1 or sizes[0] is None or sizes[0] < 2:
        raise UserError(f"{source.path.name} gives no scores of classes", "the audit is of classification alone yet")
    return sizes[0]


def _outputs(artefact: Artefact) -> tuple[str | None, str | None]:
    """The output with every class's score, and the one with the best classes; UserError when it is no classifier."""
    records = artefact.label.outputs
    by_role = {record.role: record.name for record in records}
    unread = sorted(set(by_role) - {"probabilities", "top-indices", "top-scores", "suspicion", "raw"})
    if unread:
        raise UserError(f"{artefact.label.name} gives {', '.join(unread)}", "the audit is of classification alone yet")
    raw = [record.name for record in records if record.role == "raw" and _is_scores(record)]
    scores = by_role.get("probabilities") or (raw[-1] if raw else None)
    if scores is None and "top-indices" not in by_role:
        raise UserError(f"{artefact.label.name} gives no scores of classes", "the audit is of classification alone yet")
    return scores, by_role.get("top-indices")


def _is_scores(record: OutputRecord) -> bool:
    sizes = [size for size in record.shape[1:] if size != 1]
    return len(sizes) == 1 and sizes[0] is not None
