"""Run a program that somebody far away can end: `python3 -I -c TEXT leave|stop PROGRAM...`.

A line `stop` on standard input interrupts it. If that input ends, the connection is gone: `stop` interrupts then too,
`leave` lets it come to its end.
"""

import os
import signal
import subprocess
import sys
import threading


def watch(program: "subprocess.Popen[bytes]", mode: str) -> None:
    """Interrupt the program when that is asked for."""
    line = sys.stdin.readline()
    if line.strip() == "stop" or (not line and mode == "stop"):
        program.send_signal(signal.SIGINT)


def main() -> int:
    """Run it and give its exit code."""
    mode, command = sys.argv[1], sys.argv[2:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=watch, args=(program, mode), daemon=True).start()
    code = program.wait()
    return code if code >= 0 else 128 - code


code = main()
sys.stdout.flush()
# Why not sys.exit: a thread may be waiting in a read of standard input, which must not hold the end up.
os._exit(code)
