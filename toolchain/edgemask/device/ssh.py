"""The system's own ssh: people's keys, agents, jump hosts and known hosts work; one connection for every step."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread, current_thread, main_thread
from types import TracebackType

from edgemask.device.destination import Destination
from edgemask.device.pipes import Piped
from edgemask.device.ssh_faults import lost, ssh_error
from edgemask.errors import UserError

CONNECT_S = 15
SILENCE_S = 10
OWN_FAULT = 255
NOT_FOUND = 127
LONGEST_FOLDER = 60
PROBE = b"edgemask-is-here\n"
# What a configuration made for people may ask for, and a program must not have.
PLAIN = (
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "LogLevel=INFO",
    "ControlPersist=no",
)
SINCE_8_7 = ("SessionType=default", "StdinNull=no", "ForkAfterAuthentication=no")
PATIENCE = (f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={SILENCE_S}", "ServerAliveCountMax=3")
# A step whose connection is gone must fail, and not quietly make one of its own and ask for the password again.
NO_OTHER_WAY = ("ControlMaster=no", "ProxyCommand=false")


@dataclass(frozen=True)
class Done:
    """How a command on the device ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it printed."""
        return self.out.decode("utf-8", "replace")


class Ssh:
    """A connection that was let in; leave the context to close it. `config` stands for ~/.ssh/config."""

    def __init__(self, destination: Destination, config: Path | None = None) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise UserError("ssh is missing on this machine", "install it: sudo apt install openssh-client")
        self._program = program
        self.destination = destination
        self._config = [] if config is None else ["-F", str(config)]
        self._folder = tempfile.TemporaryDirectory(prefix="edgemask-", dir=_short_folder())
        options = [word for option in (*_plain(self._program), *PATIENCE) for word in ("-o", option)]
        # Why cat: what comes back shows that commands run there, and it ends, and ssh with it, when this process does.
        with _interrupts_ignored():
            self._master = Piped([*self._ssh("-M"), *options, *destination.arguments, "cat"], shown=sys.stderr.isatty())
        self._root: list[str] | None = None

    def __enter__(self) -> Ssh:
        try:
            if not self.is_alive():
                raise self._refused()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every command on it."""
        self._master.stop()
        self._folder.cleanup()

    def run(self, command: Sequence[str], *, feed: bytes = b"", root: bool = False) -> Done:
        """Run a command to its end; UserError only where ssh itself fails. `root`: through sudo where need be."""
        with self.start(command, root=root) as channel:
            return channel.finish(feed)

    def start(self, command: Sequence[str], *, root: bool = False) -> Channel:
        """Start a command on the device."""
        words = [*self.root, *command] if root else list(command)
        options = [word for option in (*_plain(self._program), *NO_OTHER_WAY) for word in ("-o", option)]
        return Channel(self, [*self._ssh(), *options, *self.destination.arguments, shlex.join(words)])

    @property
    def root(self) -> list[str]:
        """What goes in front of a command that only root may run; UserError where this user cannot become root."""
        if self._root is None:
            self._root = self._way_to_root()
        return self._root

    def is_alive(self) -> bool:
        """Whether the connection still carries something there and back."""
        # What a shell prints when it starts stands before the first answer.
        return self._master.write(PROBE) and any(line.endswith(PROBE) for line in self._master.output)

    def lost(self) -> UserError:
        """What to tell when it is gone."""
        self._master.stop()
        return lost(self.destination, self._master.faults())

    def _ssh(self, *flags: str) -> list[str]:
        return [self._program, *self._config, "-T", *flags, "-S", str(Path(self._folder.name) / "s")]

    def _refused(self) -> UserError:
        self._master.close_input()
        code, said = self._master.wait(), self._master.faults()
        if code == OWN_FAULT:
            return ssh_error(self.destination, said)
        reason = said.strip().splitlines()[-1:] or [f"its shell ended with {code}"]
        hint = f"take a user with a shell; try it: {self.destination.command}"
        return UserError(f"{self.destination}: lets this user in, but runs no commands: {reason[0]}", hint)

    def _way_to_root(self) -> list[str]:
        if self.run(["id", "-u"]).text.strip() == "0":
            return []
        tried = self.run(["sudo", "-n", "true"])
        if tried.code == 0:
            return ["sudo", "-n", "--"]
        as_root = f"take root: ssh://root@{self.destination.host}"
        if tried.code == NOT_FOUND:
            raise UserError(f"{self.destination}: this user is not root there, and sudo is missing", as_root)
        user = self.run(["id", "-un"]).text.strip()
        rule = f"echo '{user} ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/010-edgemask"
        hint = f"on the device, for as long as you install: {rule}; or {as_root}"
        raise UserError(f"{self.destination}: {user} may not use sudo there without a password", hint)


class Channel:
    """A command on the device: its lines, its input, its end. Leave the context to end it, whatever it does."""

    def __init__(self, ssh: Ssh, command: Sequence[str]) -> None:
        self._ssh = ssh
        self._piped = Piped(command, own_group=True)

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._piped.close_input()
        self._piped.stop()

    def offer(self, data: bytes) -> bool:
        """Give the command input; False when it takes no more, of which `finish` tells why."""
        return self._piped.write(data)

    def close_input(self) -> None:
        """Tell the command that there is no more."""
        self._piped.close_input()

    def lines(self) -> Iterator[str]:
        """What it prints, line by line, as it comes."""
        for line in self._piped.output:
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def finish(self, feed: bytes = b"") -> Done:
        """Give it its last input, take what it still prints, and wait for its end."""
        feeder = Thread(target=self._feed, args=(feed,), daemon=True)
        feeder.start()
        out = self._piped.output.read()
        code = self._piped.wait()
        feeder.join()
        if code == OWN_FAULT and not self._ssh.is_alive():
            raise self._ssh.lost()
        return Done(code, out, self._piped.faults())

    def _feed(self, data: bytes) -> None:
        self._piped.write(data)
        self._piped.close_input()


@cache
def _plain(program: str) -> tuple[str, ...]:
    """PLAIN, and what is to be said to a newer ssh; an older one fails at words that it does not know."""
    # Why not IgnoreUnknown: it would stand in the place of the one in the user's own configuration.
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    version = re.search(r"OpenSSH_\D*(\d+)\.(\d+)", said.stdout + said.stderr)
    is_newer = version is not None and (int(version[1]), int(version[2])) >= (8, 7)
    return (*PLAIN, *(SINCE_8_7 if is_newer else ()))


def _short_folder() -> str:
    # A socket's path has 108 bytes, of which ssh takes 20, and TMPDIR may be long.
    usual = tempfile.gettempdir()
    return usual if len(usual.encode()) <= LONGEST_FOLDER else "/tmp"  # noqa: S108


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started inside never hears of Ctrl-C; the connection must outlive it, to end things in order."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
