"""Jobs in processes of this machine; one that dies takes nothing with it.

Why not concurrent.futures: there one dead process ends them all, and a Ctrl-C waits for what they are at.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from edgemask.auditing.setting import Setting
from edgemask.auditing.work import Job, Outcome, Runner, execute, here
from edgemask.errors import UserError

RETRIES = 3
"""How often a job begins again after the process that ran it died."""
Settings = Mapping[str, Setting]


def processes(count: int) -> Runner:
    """So many side by side, 0 for one a processor; one alone is this process itself."""
    count = count or processors()
    return here if count == 1 else Processes(count)


def processors() -> int:
    """How many processes run side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Processes:
    """A Runner on so many processes of its own."""

    count: int

    def __call__(self, settings: Settings, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Each job's number with what it found, as they end."""
        waiting, deaths = deque(range(len(jobs))), Counter[int]()
        idle = [_Worker(settings) for _ in range(min(self.count, len(jobs)))]
        busy: list[_Worker] = []
        try:
            while waiting or busy:
                while waiting and idle:
                    busy.append(idle.pop().begin(waiting[0], jobs[waiting.popleft()]))
                for worker in _answering(busy):
                    busy.remove(worker)
                    given = worker.answer()
                    idle.append(worker if given else _Worker(settings))
                    if given:
                        yield worker.number, given
                        continue
                    deaths[worker.number] += 1
                    _check(deaths[worker.number])
                    waiting.appendleft(worker.number)
        finally:
            for worker in (*idle, *busy):
                worker.end()


class _Worker:
    """A process, and the number of the job that it is at."""

    def __init__(self, settings: Settings) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, settings), daemon=True)
        self._process.start()
        theirs.close()
        self.number = -1

    def begin(self, number: int, job: Job) -> _Worker:
        """Give it a job; if it is dead, its answer will say so."""
        self.number = number
        with suppress(OSError):
            self.pipe.send(job)
        return self

    def answer(self) -> Outcome | None:
        """What its job found; None when the process has died."""
        try:
            given: Outcome | Exception = self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            return None
        if isinstance(given, Exception):
            raise given
        return given

    def end(self) -> None:
        """Whatever it is at."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _answering(busy: Sequence[_Worker]) -> list[_Worker]:
    ready = wait([worker.pipe for worker in busy])
    return [worker for worker in busy if worker.pipe in ready]


def _check(deaths: int) -> None:
    if deaths > RETRIES:
        raise UserError(
            f"a job died {deaths} times, each time with its process",
            "mostly memory runs out: fewer --workers; what was found before is kept",
        )


def _work(pipe: Connection, settings: Settings) -> None:
    """Do jobs until the parent is gone; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            job: Job = pipe.recv()
            pipe.send(_tried(job, settings))


def _tried(job: Job, settings: Settings) -> Outcome | Exception:
    try:
        return execute(settings[job.setting], job)
    except UserError as error:
        return error
    except Exception:
        return RuntimeError(traceback.format_exc())
