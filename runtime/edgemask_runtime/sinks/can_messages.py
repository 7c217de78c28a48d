"""Answers as frames for a CAN bus, laid out as the DBC beside this file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import cantools

from edgemask_runtime.answers import Answer
from edgemask_runtime.detections import Detection
from edgemask_runtime.formats import Format
from edgemask_runtime.manifest import CanMessage, CanRecord
from edgemask_runtime.sinks.e2e import protect_5, protect_11

DBC = "edgemask.dbc"
NAMES: dict[CanMessage, str] = {
    "classification": "EdgemaskClassification",
    "objects": "EdgemaskObjects",
    "objects-fd": "EdgemaskObjectsFd",
}
MAX_OBJECTS = 6
STARTING, VALID, STALLED, EXPIRED, MODEL_DOWN, STOPPING, FAILED = range(7)
"""What the signal Validity says."""
SCORE_STEPS, SIDE_STEPS = 250, 1000
"""Steps from 0 to 1."""
SCORE_BITS, SIDE_BITS, INDEX_BITS, TOP_BITS, AGE_BITS, COUNT_BITS = 8, 10, 12, 16, 16, 8
NOT_JUDGED = 3
Signals = dict[str, int]


@dataclass(frozen=True)
class State:
    """What is to be sent: the newest answer with its age, or none and why."""

    validity: int
    answer: Answer | None = None
    age_ms: float = 0.0


class Encoder:
    """Makes the frames of one allowed message; every frame counts on."""

    def __init__(self, record: CanRecord, frame: Format) -> None:
        self.record = record
        self._definition = definitions()[NAMES[record.message]]
        self._protect = protect_5 if self.is_fd else protect_11
        self._signals, self._frame = SIGNALS[record.message], frame
        self._counter = 0

    @property
    def is_fd(self) -> bool:
        """Whether only a CAN FD bus takes it."""
        return bool(self._definition.is_fd)

    def frames(self, state: State) -> Iterator[bytearray]:
        """The data of the frames that say so, each counted and protected when it is taken."""
        for signals in self._signals(state, self._frame):
            data = bytearray(
                self._definition.encode({**signals, "Crc": 0, "Counter": 0}, scaling=False, padding=True, strict=False)
            )
            self._protect(data, self.record.data_id, self._counter)
            self._counter += 1
            yield data


def loaded() -> Any:
    """The shipped DBC, read anew."""
    text = (files("edgemask_runtime.sinks") / DBC).read_text("utf-8")
    return cantools.database.load_string(text, "dbc")


@cache
def definitions() -> dict[str, Any]:
    """The messages of the shipped DBC by their names."""
    return {message.name: message for message in loaded().messages}


def _classification(state: State, frame: Format) -> Iterator[Signals]:
    best = state.answer.reading.top[0] if state.answer and state.answer.reading.top else None
    yield {
        **_common(state, frame_bits=6),
        "TopClass": _index(best.index if best else None, TOP_BITS),
        "TopScore": _share(best.score if best else None, SCORE_STEPS, SCORE_BITS),
        "Age": _age(state),
    }


def _objects(state: State, frame: Format) -> Iterator[Signals]:
    """All in one frame of CAN FD."""
    found = _found(state)
    told: Signals = {}
    for number in range(1, MAX_OBJECTS + 1):
        detection = found[number - 1] if number <= len(found) else None
        told |= _box(number, detection, frame) | _class(number, detection)
    yield {**_common(state, frame_bits=8), "Count": _count(state), "Age": _age(state), **told}


def _parts(state: State, frame: Format) -> Iterator[Signals]:
    """A summary, then two frames an object: an eighth of the room, so that a receiver puts them together."""
    common = _common(state, frame_bits=4)
    suspicious = common.pop("Suspicious")
    yield {**common, "Part": 0, "Count": _count(state), "Age": _age(state), "Suspicious": suspicious}
    for number, detection in enumerate(_found(state)[:MAX_OBJECTS], 1):
        yield {**common, "Part": 2 * number - 1, **_box(number, detection, frame)}
        yield {**common, "Part": 2 * number, **_class(number, detection)}


def _common(state: State, frame_bits: int) -> Signals:
    answer = state.answer
    judged = answer.reading.suspicious if answer else None
    return {
        "Validity": state.validity,
        "FrameNumber": answer.frame % (1 << frame_bits) if answer else 0,
        "Suspicious": NOT_JUDGED if judged is None else int(judged),
    }


def _found(state: State) -> Sequence[Detection]:
    return (state.answer.reading.detections or ()) if state.answer else ()


def _count(state: State) -> int:
    return min(len(_found(state)), _last(COUNT_BITS) - 1) if state.answer else _last(COUNT_BITS)


def _age(state: State) -> int:
    return min(int(state.age_ms), _last(AGE_BITS) - 1) if state.answer else _last(AGE_BITS)


def _box(number: int, detection: Detection | None, frame: Format) -> Signals:
    sides = detection.box if detection else (None,) * 4
    sizes = (frame.width, frame.height) * 2
    shares = [None if side is None else side / size for side, size in zip(sides, sizes, strict=True)]
    names = ("Left", "Top", "Right", "Bottom")
    return {
        f"Object{number}{name}": _share(share, SIDE_STEPS, SIDE_BITS) for name, share in zip(names, shares, strict=True)
    }


def _class(number: int, detection: Detection | None) -> Signals:
    recognised = detection.recognised[0].index if detection and detection.recognised else None
    return {
        f"Object{number}Class": _index(detection.index if detection else None, INDEX_BITS),
        f"Object{number}Recognised": _index(recognised, INDEX_BITS),
        f"Object{number}Score": _share(detection.score if detection else None, SCORE_STEPS, SCORE_BITS),
    }


def _index(index: int | None, bits: int) -> int:
    """The index, or the last value for none and the one before for what is beyond the range."""
    if index is None:
        return _last(bits)
    return index if 0 <= index < _last(bits) - 1 else _last(bits) - 1


def _share(share: float | None, steps: int, bits: int) -> int:
    """A number from 0 to 1 in steps, cut to that; the last value where there is none."""
    return _last(bits) if share is None else round(min(1.0, max(0.0, share)) * steps)


def _last(bits: int) -> int:
    return (1 << bits) - 1


SIGNALS: dict[CanMessage, Callable[[State, Format], Iterator[Signals]]] = {
    "classification": _classification,
    "objects": _parts,
    "objects-fd": _objects,
}
