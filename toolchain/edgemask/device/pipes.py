"""A program with pipes at all its ends, which never waits for somebody to read what it says of faults."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import IO

KEPT_LINES = 200


class Piped:
    """A running program: write to `input`, read from `output`; what it says of faults is kept.

    With `own_group` Ctrl-C is not for it. With `shown` its faults are printed here as they come.
    """

    def __init__(self, command: Sequence[str], *, own_group: bool = False, shown: bool = False) -> None:
        pipe = subprocess.PIPE
        group = 0 if own_group else None
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, process_group=group)
        if not (self._process.stdin and self._process.stdout and self._process.stderr):
            raise RuntimeError("Popen was asked for three pipes")
        self.input: IO[bytes] = self._process.stdin
        self.output: IO[bytes] = self._process.stdout
        self._errors: IO[bytes] = self._process.stderr
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = Thread(target=self._read, args=(shown,), daemon=True)
        self._reader.start()

    def write(self, data: bytes) -> bool:
        """Give it input; False when it takes no more, or this end is closed."""
        try:
            self.input.write(data)
            self.input.flush()
        except (OSError, ValueError):
            return False
        return True

    def close_input(self) -> None:
        """Tell it that there is no more."""
        with suppress(OSError):
            self.input.close()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    def faults(self) -> str:
        """What it said of faults, once it has ended."""
        self._reader.join()
        return "\n".join(self._lines)

    def stop(self) -> None:
        """End it if it still runs, and take its pipes away."""
        # Why not SIGKILL: ssh may be asking for a password, and gives the terminal its echo back.
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        for stream in (self.input, self.output):
            with suppress(OSError):
                stream.close()

    def _read(self, shown: bool) -> None:
        for line in self._errors:
            self._lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if shown:
                print(self._lines[-1], file=sys.stderr, flush=True)
        # Why here: a command on the device may hold this end for longer than its ssh lives.
        self._errors.close()
