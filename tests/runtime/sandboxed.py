"""Run a command as a unit's sandbox would have it: no new executable memory, only the system calls that it allows.

`python sandboxed.py UNIT COMMAND...`; exits with 77 where this kernel or machine cannot do so.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import subprocess
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 38, 65, 1
KILL, ALLOW, EPERM = 0x80000000, 0x7FFF0000, 0x00050001
CANNOT = 77


def members(group: str) -> set[str]:
    """The system calls of one of systemd's groups, with those of the groups in it."""
    shown = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = [
        line.strip() for line in shown.stdout.splitlines()[1:] if line.strip() and not line.strip().startswith("#")
    ]
    return set().union(*(members(word) if word.startswith("@") else {word} for word in words))


def allowed(unit: Path) -> set[str]:
    """What is left after every SystemCallFilter= line, as systemd reads them."""
    calls: set[str] = set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        taken = set().union(*map(members, words.removeprefix("~").split()))
        calls = calls - taken if words.startswith("~") else calls | taken
    # systemd itself runs the command, and these are always let through.
    return calls | members("@default") | {"execve"}


def refuse_executable_memory() -> None:
    """Do as MemoryDenyWriteExecute= does; Linux 6.3 can."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
        sys.exit(CANNOT)


def refuse_system_calls(calls: set[str]) -> None:
    """Answer EPERM to every call that is not in the list."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(EPERM)))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0)
    if seccomp.seccomp_load(context):
        sys.exit(CANNOT)


def main(unit: str, *command: str) -> None:
    text = Path(unit).read_text()
    calls = allowed(Path(unit))
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "MemoryDenyWriteExecute=yes" in text:
        refuse_executable_memory()
    refuse_system_calls(calls)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
