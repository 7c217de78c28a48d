"""Run a program that somebody far away can end: `python3 -I -c TEXT leave|stop SETTINGS PROGRAM...`.

A line `stop` on standard input interrupts it. If that input ends, the connection is gone: `stop` interrupts then too,
`leave` lets it come to its end. SETTINGS is empty, or FROM=TO: FROM stands in TO's place, and goes again if it fails.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def swapped(where: str) -> "Callable[[], None]":
    """Put new settings into their place; what is returned puts the old ones back."""
    if not where:
        return lambda: None
    new, place = map(Path, where.split("="))
    before, beside = place.with_name(place.name + ".before"), place.with_name(place.name + ".part")
    place.parent.mkdir(parents=True, exist_ok=True)
    there = place.is_symlink() or place.exists()
    if there:
        before.unlink(missing_ok=True)
        shutil.copy2(place, before, follow_symlinks=False)
    shutil.copyfile(new, beside)
    beside.chmod(0o644)
    beside.replace(place)

    def back() -> None:
        before.replace(place) if there else place.unlink()

    return back


def watch(program: "subprocess.Popen[bytes]", mode: str) -> None:
    """Interrupt the program when that is asked for."""
    line = sys.stdin.readline()
    if line.strip() == "stop" or (not line and mode == "stop"):
        program.send_signal(signal.SIGINT)


def main() -> int:
    """Run it and give its exit code."""
    mode, settings, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    back = swapped(settings)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=watch, args=(program, mode), daemon=True).start()
    code = program.wait()
    if code:
        back()
    return code if code >= 0 else 128 - code


code = main()
sys.stdout.flush()
# Why not sys.exit: a thread may be waiting in a read of standard input, which must not hold the end up.
os._exit(code)
