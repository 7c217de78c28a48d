"""A board with a release on it, as the tests of devices share it, and what they ask of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .machine import Board
from .releases import Maker

SERVE_S = 900.0


@dataclass
class Device:
    """A board, whoever makes its releases, the first of these, and when the tests began."""

    board: Board
    maker: Maker
    first: Path
    begun: float = field(default_factory=time.monotonic)

    def say(self, *words: object) -> None:
        """A line in the log, with the seconds since the tests began."""
        print(f"[{time.monotonic() - self.begun:6.0f} s]", *words, flush=True)

    def flash(self, release: Path, *options: str, code: int = 0, user: str = "pi") -> str:
        """What `edgemask flash` prints, sent as a user of the board who may use sudo."""
        self.say("edgemask flash", release.name, *options)
        told = []
        with self._started(release, *options, user=user) as running:
            assert running.stdout is not None
            for line in running.stdout:
                told.append(line)
                self.say("   ", line.rstrip())
        self.say("    exit", running.returncode)
        assert running.returncode == code, "".join(told)
        return "".join(told)

    def _started(self, release: Path, *options: str, user: str = "pi") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgemask", "flash", str(release), "--to", f"{user}@board", "--yes", *options]
        return subprocess.Popen(
            [*command, "--ssh-config", str(self.board.ssh_config)],
            env=self.maker.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def update(self, serial: int, name: str = "", **changes: Any) -> Path:
        """A newer release for the board."""
        return self.maker.update(self.first, serial, name, **changes)

    def light(self, name: str, **changes: Any) -> Path:
        """A release for refusals."""
        return self.maker.light(self.first, name, **changes)

    def install(self, release: Path, code: int) -> str:
        """Give the release to the device's own installer, without any check on the host; what it printed."""
        self.put(release, "/root/given.release")
        done = self.board.run("edgemask-device", "install", "/root/given.release", check=False)
        told = done.stdout + done.stderr
        assert done.returncode == code, f"{done.returncode}\n{told}"
        return told

    def put(self, path: Path, to: str) -> None:
        """Copy a file onto the board."""
        through = ["-F", str(self.board.ssh_config), "-o", f"ControlPath={self.board.socket}"]
        subprocess.run(["scp", "-q", *through, str(path), f"root@board:{to}"], check=True, timeout=1800)

    def status(self) -> dict[str, Any]:
        """What the device says of itself."""
        return dict(json.loads(self.board.ask("edgemask-device", "status", "--json")))

    def serving(self, timeout_s: float = SERVE_S) -> dict[str, Any]:
        """Wait until the daemon serves; the status then."""
        begun = time.monotonic()
        while (told := self.status())["health"] != "ready" or told["service"]["state"] != "active":
            assert time.monotonic() - begun < timeout_s, f"{told}\n{self.board.journal('edgemaskd')}"
            time.sleep(1)
        assert told["trouble"] == [], told
        return told

    def answers(self, count: int) -> list[dict[str, Any]]:
        """The newest answers of the pipeline, once there are so many that are newer than now."""
        path, begun = "/var/lib/edgemask/answers.jsonl", time.monotonic()
        at = int(self.board.shell(f"cat {path} 2>/dev/null | wc -l"))
        wait = f"n=0; while [ $(wc -l < {path}) -lt {at + count} ] && [ $n -lt 600 ]; do n=$((n+1)); sleep 1; done"
        told = self.board.shell(f"{wait}; tail -n {count} {path}", timeout_s=900).splitlines()
        self.say(f"{len(told)} answers in {time.monotonic() - begun:.0f} s")
        return [json.loads(line) for line in told]

    def cut_at(self, release: Path, step: str) -> None:
        """Cut the power when a flash comes to `step`."""
        with self._started(release) as running:
            assert running.stdout is not None
            told = []
            for line in running.stdout:
                told.append(line)
                if line.startswith(step):
                    break
            assert running.poll() is None, f"never came to {step!r}: {''.join(told)}"
            self.board.cut_power()
            self.say("the power was cut when", release.name, "was at:", told[-1].strip())
            running.kill()

    def cut_after(self, release: Path, after_s: float) -> str:
        """Cut the power so long after a flash began; the step that it was at."""
        with self._started(release) as running:
            # Why a pause: the moment is what is drawn; no event is waited for.
            time.sleep(after_s)
            self.board.cut_power()
            running.kill()
            told, _ = running.communicate()
        return (told.splitlines() or ["nothing"])[-1]

    def boot(self) -> float:
        """Power on again; the seconds until somebody can log in."""
        took_s = self.board.boot()
        self.say(f"booted again in {took_s:.0f} s")
        return took_s
