"""Jobs on a Ray cluster. It runs code: use machines of your own alone."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgemask.auditing.setting import Setting
from edgemask.auditing.work import Job, Outcome, execute, versions
from edgemask.errors import UserError, one_line

LOCAL = "local"
RETRIES = 3
"""How often a job begins again after the process or the machine that ran it died."""
AHEAD = 2
"""Jobs that lie ready for each processor; more would only fill memory."""
REACHED_WITHIN_S = 10


@dataclass(frozen=True)
class Cluster:
    """A Runner on the cluster at `address`, or, with "local", one of this machine's processors for the time it takes.

    Inside a program that has joined a cluster already, that one is used.
    """

    address: str
    workers: int = 0

    def __call__(self, settings: Mapping[str, Setting], jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Each job's number with what it found, as they end."""
        if not jobs:
            return
        with _joined(self.address, self.workers) as ray:
            yield from _carried_out(ray, settings, jobs, self.workers)


@contextmanager
def _joined(address: str, workers: int) -> Iterator[Any]:
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray", "pip install 'edgemask[ray]'")
    import ray

    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": workers or None, "include_dashboard": False} if address == LOCAL else {}
    # Ray's own cluster would tell its makers of each start.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(
            f"--ray {address}: no cluster answers: {one_line(error)}",
            "`ray start --head` starts one, and `ray status` names its address; or --ray local",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself tries an address for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN_S).close()


def _carried_out(
    ray: Any, settings: Mapping[str, Setting], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[int, Outcome]]:
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_execute)
    stored = {name: ray.put(setting) for name, setting in settings.items()}
    side_by_side = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, running = iter(enumerate(jobs)), dict[Any, int]()
    try:
        while True:
            for number, job in islice(waiting, AHEAD * side_by_side - len(running)):
                running[remote.remote(versions(), stored[job.setting], job)] = number
            if not running:
                return
            (ready,), _ = ray.wait(list(running))
            outcome = _given(ray, ready)
            yield running.pop(ready), outcome
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _given(ray: Any, ready: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        # Why the cause: a job whose setting got lost on its way comes as an error of the job's own.
        if isinstance(error.cause, ray.exceptions.RayError):
            raise _lost(error.cause) from error
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    except ray.exceptions.RayError as error:
        raise _lost(error) from error
    return outcome


def _lost(error: Exception) -> UserError:
    return UserError(
        f"a job was lost on the cluster, which tried it {RETRIES + 1} times at most: {one_line(error)}",
        "`ray status` and the cluster's logs say why, mostly memory; what was found before is kept",
    )


def _execute(wanted: tuple[tuple[str, str], ...], setting: Setting, job: Job) -> Outcome:
    """On a machine of the cluster."""
    if differing := sorted(set(versions()) ^ set(wanted)):
        package = differing[0][0]
        there, here = (dict(found).get(package, "missing") for found in (versions(), wanted))
        raise UserError(
            f"{platform.node()} has {package} {there}, this machine {here}",
            "install the same versions on every machine of the cluster: what is found must not depend on where",
        )
    return execute(setting, job)
