"""A campaign: every attack on every shard of the frames, in processes of their own; what is done is kept."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgemask import __version__
from edgemask.auditing.attacks import Attack, Target
from edgemask.auditing.setting import Setting
from edgemask.auditing.shipped import Labels, Shipped
from edgemask.auditing.threat import Threat
from edgemask_runtime.files import write_atomic
from edgemask_runtime.formats import Pixels

SHARD = 32
CHOOSING, JUDGING = range(1000, 1010), range(2000, 2020)
"""Draws of the entropy: some choose the worst attack on a frame, others, which no attack saw, judge it."""
SEED = 20180710

_targets: dict[str, Target] = {}
_subjects: list[Subject] = []


@dataclass(frozen=True)
class Subject:
    """What is under attack, and the frames with their labels."""

    setting: Setting
    threat: Threat
    frames: Pixels
    labels: Labels


@dataclass(frozen=True)
class Outcome:
    """What an attack found: frames, and how often each is classified right, over draws to choose by and to judge by."""

    found: Pixels
    chosen: NDArray[np.float64]
    judged: NDArray[np.float64]
    seconds: float


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


def run(
    subject: Subject,
    attacks: Sequence[Attack],
    kept: Path,
    *,
    workers: int,
    done: Callable[[Task], None] = lambda task: None,
) -> dict[Attack, Outcome]:
    """Every attack on every frame; tasks that lie in the folder `kept` are read, and each new one is written there."""
    tasks = tasks_of(subject, attacks)
    name = _subject_name(subject)
    files = {task: kept / f"{_task_name(name, task)}.npz" for task in tasks}
    missing = [task for task in tasks if not files[task].is_file()]
    for task in tasks:
        if files[task].is_file():
            done(task)
    for task, outcome in _computed(subject, missing, workers):
        write_atomic(files[task], _packed(outcome))
        done(task)
    return {attack: _joined([_read(files[t]) for t in tasks if t.attack == attack]) for attack in attacks}


def tasks_of(subject: Subject, attacks: Sequence[Attack]) -> list[Task]:
    """Every attack on every shard."""
    return [Task(attack, *shard) for attack in attacks for shard in _shards(len(subject.labels))]


def rightness(shipped: Shipped, frames: Pixels, labels: Labels, draws: Sequence[int]) -> NDArray[np.float64]:
    """Of each frame the share of draws in which it is classified right; without randomness one draw is enough."""
    wanted = draws if shipped.is_random else draws[:1]
    shares: NDArray[np.float64] = np.mean([shipped.labels(frames, draw) == labels for draw in wanted], axis=0)
    return shares


def execute(subject: Subject, task: Task) -> Outcome:
    """Run one task here."""
    # With more threads sums come in another order, and a search that follows their last digit finds something else.
    torch.set_num_threads(1)
    begun, part = time.monotonic(), slice(task.begin, task.end)
    frames, labels = subject.frames[part], subject.labels[part]
    target = _target(subject)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = task.attack.run(target, frames, labels, task.seed)
    judged = [rightness(target.shipped, found, labels, draws) for draws in (CHOOSING, JUDGING)]
    return Outcome(found, judged[0], judged[1], time.monotonic() - begun)


def _computed(subject: Subject, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Outcome]]:
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, execute(subject, task)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _alone, (subject,)) as pool:
        futures: dict[Future[Outcome], Task] = {pool.submit(_execute_here, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(subject: Subject) -> None:
    """Begin a process that works on this subject; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _subjects.append(subject)


def _execute_here(task: Task) -> Outcome:
    return execute(_subjects[-1], task)


def _target(subject: Subject) -> Target:
    """What is attacked, made once in a process."""
    name = f"{subject.setting.digest} {subject.threat!r}"
    if name not in _targets:
        _targets[name] = subject.setting.target(subject.threat)
    return _targets[name]


def _shards(count: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + SHARD, count)) for begin in range(0, count, SHARD)]


def _subject_name(subject: Subject) -> str:
    """A digest of all that a result depends on, but for the attack."""
    parts = [subject.setting.digest, repr(subject.threat), __version__]
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


def processors() -> int:
    """How many processes run side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
