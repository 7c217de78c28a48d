"""Where Edgemask is on a device, and its own program there, which installs, tells and takes away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgemask.device.facts import Facts, objects
from edgemask.device.ssh import NOT_FOUND, Channel, Done, Ssh
from edgemask.device.there import sent
from edgemask.device.upload import Tell
from edgemask.errors import UserError
from edgemask_runtime.install.layout import Layout

REFUSED, WENT_BACK = 2, 5
NOT_RUNNABLE = 126


class Returned(UserError):
    """The device took the new version, which did not run well, and went back to the one before."""

    exit_code: ClassVar[int] = WENT_BACK


@dataclass(frozen=True)
class Home:
    """The folders on a device; `card` is what a prepared card brings.

    `program` stands for its `edgemask-device` where services are not systemd's.
    """

    root: str = "/opt/edgemask"
    settings: str = "/etc/edgemask/edgemaskd.toml"
    program: tuple[str, ...] = ()
    card: str = str(Layout().card)

    @property
    def device(self) -> list[str]:
        """The installed `edgemask-device`."""
        return list(self.program) or [self.of("edgemask-device")]

    def of(self, program: str) -> str:
        """A program of the version that runs."""
        return f"{self.root}/current/venv/bin/{program}"


def ask_device(ssh: Ssh, home: Home, *words: str) -> Any:
    """What the device's own program tells as JSON; UserError where nothing is installed, or with what it says."""
    done = ssh.run([*home.device, *words, "--json"])
    if done.code not in (0, REFUSED, WENT_BACK) and ssh.run([*home.device, "--version"]).code:
        raise nothing(ssh)
    return _last(_checked(ssh, done), ssh)


def change_device(ssh: Ssh, command: Sequence[str], tell: Tell, *, root: bool = True, python: str = "python3") -> Any:
    """Run a command of the device's program that changes it; what it tells in the end.

    It goes on where the connection breaks off, and is undone on Ctrl-C.
    """
    leash = sent("leash", "leave", *command, "--json", python=python)
    with ssh.start(leash, root=root) as channel:
        last = _followed(channel, tell)
        done = channel.finish()
    _checked(ssh, done)
    return _last(Done(0, last.encode(), ""), ssh)


def _followed(channel: Channel, tell: Tell) -> str:
    """Pass on each step; what was told at last. On Ctrl-C the device undoes what it did, which is waited for."""
    last = ""
    try:
        for line in channel.lines():
            last = _heard(line, tell, last)
    except KeyboardInterrupt:
        channel.offer(b"stop\n")
        tell("undo", 0, 1)
        for line in channel.lines():
            last = _heard(line, lambda *_: None, last)
        if not last:
            raise
    return last


def _heard(line: str, tell: Tell, last: str) -> str:
    values = next(iter(objects(line)), None)
    if values is None:
        return last
    if values.keys() != {"step", "done", "of"}:
        return line
    tell(str(values["step"]), int(values["done"]), int(values["of"]))
    return last


def _checked(ssh: Ssh, done: Done) -> Done:
    if done.code == 0:
        return done
    if done.code in (NOT_FOUND, NOT_RUNNABLE):
        raise nothing(ssh)
    kind = Returned if done.code == WENT_BACK else UserError
    raise kind(*_said(ssh, done))


def require_installed(ssh: Ssh, facts: Facts) -> dict[str, Any]:
    """The manifest of what is installed; UserError where nothing is, or nothing that runs."""
    if facts.installed is None or not facts.runs:
        raise nothing(ssh)
    return facts.installed


def nothing(ssh: Ssh) -> UserError:
    """That there is nothing that could be asked."""
    hint = f"edgemask flash RELEASE --to {ssh.destination}"
    return UserError(f"{ssh.destination}: Edgemask is not installed there, or its Python is gone", hint)


def _said(ssh: Ssh, done: Done) -> tuple[str, str | None]:
    """The error and the hint that the device's program printed, as this program's own."""
    message, _, hint = (done.err.strip() or f"it ended with {done.code}").rpartition("\nhint: ")
    if not message:
        message, hint = hint, ""
    words = message.partition("error: ")[2] or message
    return f"{ssh.destination}: {words}", hint.replace("edgemask-device ", "sudo edgemask-device ") or None


def _last(done: Done, ssh: Ssh) -> Any:
    values = objects(done.text)
    if not values:
        raise UserError(f"{ssh.destination}: it told nothing of what it did", f"edgemask status {ssh.destination}")
    return values[-1]
