"""The real daemon as a subprocess."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMMAND = [sys.executable, "-m", "edgemask_runtime.daemon"]


@dataclass
class Daemon:
    process: subprocess.Popen[str]
    errors: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def collect(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self.changed:
                self.errors.append(line)
                self.changed.notify_all()

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until stderr matches."""
        with self.changed:
            assert self.changed.wait_for(lambda: re.search(pattern, "".join(self.errors)), 60), "".join(self.errors)
        match = re.search(pattern, "".join(self.errors))
        assert match
        return match

    @property
    def url(self) -> str:
        return self.said(r"listening on (http://\S+)")[1]


def run_daemon(*arguments: Any, timeout_s: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **options)


@contextmanager
def watched(command: list[str], stdout: int = subprocess.PIPE, **options: Any) -> Iterator[Daemon]:
    """Start the command, collect what it says, and kill it in the end if it still runs."""
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, **options) as process:
        daemon = Daemon(process)
        reader = threading.Thread(target=daemon.collect)
        reader.start()
        try:
            yield daemon
        finally:
            process.kill()
            reader.join()


@contextmanager
def running_daemon(*arguments: Any, **options: Any) -> Iterator[Daemon]:
    """Start `edgemaskd run` on any free port."""
    with watched([*COMMAND, "run", *map(str, arguments), "--listen", "127.0.0.1:0"], **options) as daemon:
        yield daemon
