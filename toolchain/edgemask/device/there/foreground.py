"""Run a service's program by hand: `python3 -I -c TEXT UNIT USER PROGRAM...`.

The service stands still meanwhile, and runs again afterwards if it ran before. A line on standard input, or its end,
interrupts the program.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SYSTEMCTL = shutil.which("systemctl") or "/usr/bin/systemctl"


def systemctl(*words: str) -> int:
    """Ask systemd, if there is one."""
    try:
        return subprocess.run([SYSTEMCTL, *words], stdin=subprocess.DEVNULL, check=False).returncode
    except OSError:
        return 1


def account(name: str) -> "dict[str, Any]":
    """How to start a process as this user, if there is one and we may."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return {}
    if os.geteuid() != 0:
        return {}
    made = Path("/run", name)
    made.mkdir(exist_ok=True)
    os.chown(made, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(name, user.pw_gid)}


def watch(program: "subprocess.Popen[bytes]") -> None:
    """Interrupt the program as soon as anything is said, or nobody is there any more."""
    sys.stdin.readline()
    program.send_signal(signal.SIGINT)


def main() -> int:
    """Run it and give its exit code."""
    unit, name, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ran = systemctl("is-active", "--quiet", unit) == 0
    if ran:
        systemctl("stop", unit)
    folders = {"STATE_DIRECTORY": "/var/lib/" + name, "RUNTIME_DIRECTORY": "/run/" + name, "PYTHONUNBUFFERED": "1"}
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **folders},
            **account(name),
        )
        threading.Thread(target=watch, args=(program,), daemon=True).start()
        code = program.wait()
    finally:
        if ran:
            systemctl("start", unit)
    return code if code >= 0 else 128 - code


code = main()
# Why not sys.exit: a thread is waiting in a read of standard input, which must not hold the end up.
os._exit(code)
