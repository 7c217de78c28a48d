"""A campaign: every attack on every shard of the frames, wherever a runner runs them; what is done is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from edgemask.auditing.attacks import Attack
from edgemask.auditing.setting import Setting
from edgemask.auditing.shipped import Labels
from edgemask.auditing.threat import Threat
from edgemask.auditing.work import Job, Outcome, Runner, execute, versions
from edgemask_runtime.files import write_atomic
from edgemask_runtime.formats import Pixels

SHARD = 32
SEED = 20180710


@dataclass(frozen=True)
class Subject:
    """What is under attack, and the frames with their labels."""

    setting: Setting
    threat: Threat
    frames: Pixels
    labels: Labels


@dataclass(frozen=True)
class Trial:
    """A subject and the attacks on it."""

    subject: Subject
    attacks: Sequence[Attack]


@dataclass(frozen=True)
class Task:
    """One attack on one shard; `begin` and `end` are its frames."""

    attack: Attack
    begin: int
    end: int

    @property
    def seed(self) -> int:
        """The same on any machine, whatever else runs."""
        text = f"{SEED} {self.attack!r} {self.begin}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


Found = dict[Attack, Outcome]


def run(
    trials: Mapping[str, Trial],
    kept: Path,
    runner: Runner,
    *,
    done: Callable[[Task], None] = lambda task: None,
) -> dict[str, Found]:
    """Every attack on every frame of each trial.

    Tasks that lie in the folder `kept` are read, and each new one is written there as soon as it is done.
    """
    made = {name: _Kept(trial, kept) for name, trial in trials.items()}
    missing = []
    for trial in made.values():
        for task, file in trial.files.items():
            if file.is_file():
                done(task)
            else:
                missing.append((trial.subject, task, file))
    settings = {subject.setting.digest: subject.setting for subject, _, _ in missing}
    for number, outcome in runner(settings, [_job(subject, task) for subject, task, _ in missing]):
        _, task, file = missing[number]
        write_atomic(file, _packed(outcome))
        done(task)
    return {name: trial.found() for name, trial in made.items()}


def tasks_of(trial: Trial) -> list[Task]:
    """Every attack on every shard."""
    return [Task(attack, *shard) for attack in trial.attacks for shard in _shards(len(trial.subject.labels))]


def execute_here(subject: Subject, task: Task) -> Outcome:
    """Run one task in this process."""
    return execute(subject.setting, _job(subject, task))


class _Kept:
    """A trial's tasks, and where each is kept."""

    def __init__(self, trial: Trial, kept: Path) -> None:
        self.subject, self._attacks = trial.subject, trial.attacks
        name = _subject_name(trial.subject)
        self.files = {task: kept / f"{_task_name(name, task)}.npz" for task in tasks_of(trial)}

    def found(self) -> Found:
        """What each attack found, of all shards."""
        return {
            attack: _joined([_read(file) for task, file in self.files.items() if task.attack == attack])
            for attack in self._attacks
        }


def _job(subject: Subject, task: Task) -> Job:
    part = slice(task.begin, task.end)
    frames, labels = subject.frames[part], subject.labels[part]
    return Job(subject.setting.digest, subject.threat, task.attack, frames, labels, task.seed)


def _shards(count: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + SHARD, count)) for begin in range(0, count, SHARD)]


def _subject_name(subject: Subject) -> str:
    """A digest of all that a result depends on, but for the attack."""
    parts = [subject.setting.digest, repr(subject.threat), repr(versions())]
    parts += [_digest(subject.frames.tobytes()), _digest(subject.labels.tobytes())]
    return _digest("\n".join(parts).encode())


def _task_name(subject: str, task: Task) -> str:
    settings = {"attack": type(task.attack).__name__, **asdict(task.attack), "begin": task.begin, "end": task.end}
    return _digest(f"{subject} {json.dumps(settings, sort_keys=True)}".encode())[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _packed(outcome: Outcome) -> bytes:
    file = BytesIO()
    np.savez_compressed(
        file, found=outcome.found, chosen=outcome.chosen, judged=outcome.judged, seconds=np.array(outcome.seconds)
    )
    return file.getvalue()


def _read(path: Path) -> Outcome:
    with np.load(path, allow_pickle=False) as kept:
        return Outcome(kept["found"], kept["chosen"], kept["judged"], float(kept["seconds"]))


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        np.concatenate([part.found for part in parts]),
        np.concatenate([part.chosen for part in parts]),
        np.concatenate([part.judged for part in parts]),
        sum(part.seconds for part in parts),
    )
