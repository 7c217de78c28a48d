"""What people ask of a device that has Edgemask: how it is, what it said, the version before, a run, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemask.device.destination import Destination
from edgemask.device.facts import Facts, ask_facts
from edgemask.device.flash import bare
from edgemask.device.home import Home, ask_device, change_device, nothing, require_installed
from edgemask.device.ssh import Channel, Ssh
from edgemask.device.there import sent
from edgemask.device.upload import Inbox, Parcel, Tell
from edgemask.errors import UserError

UNIT = "edgemaskd.service"
USER = "edgemask"
PYTHONS = [f"3.{minor}" for minor in range(10, 30)]
"""Those that the installer runs with."""
Say = Callable[[str], None]
"""Takes a line that the device printed."""
Commands = Callable[[dict[str, Any]], Iterable[list[str]]]
"""What is to be run on a device that has this release installed."""


def status(host: str, config: Path | None = None, home: Home | None = None) -> dict[str, Any]:
    """What runs on the device, what is beside it, and what went wrong last."""
    with Ssh(Destination.parse(host), config) as ssh:
        told: dict[str, Any] = ask_device(ssh, home or Home(), "status")
        return told


def rollback(host: str, tell: Tell, config: Path | None = None, home: Home | None = None) -> dict[str, Any]:
    """Go back to the version before; what runs then."""
    with _changing(host, config, home or Home()) as (ssh, root):
        told = change_device(ssh, [*(home or Home()).device, "rollback"], tell, root=root)
    installed: dict[str, Any] = told["installed"]
    return installed


def uninstall(
    host: str, tell: Tell, config: Path | None = None, home: Home | None = None, *, purge: bool = False
) -> list[str]:
    """Take everything away, or the rest of it; the folders that are gone. `purge`: what is the owner's, too."""
    there = home or Home()
    with Ssh(Destination.parse(host), config) as ssh:
        facts = ask_facts(ssh, there, pythons=PYTHONS)
        if not facts.left:
            raise nothing(ssh)
        words = ["uninstall", *(["--purge"] if purge else [])]
        with _installer(ssh, facts, there, tell) as program:
            told = change_device(ssh, [*program, *words], tell, root=not facts.writable)
    removed: list[str] = told["removed"]
    return removed


def logs(host: str, say: Say, config: Path | None = None, *, lines: int = 100, follow: bool = False) -> None:
    """What the daemon said, oldest first; with `follow` until it is interrupted or the connection ends."""
    with Ssh(Destination.parse(host), config) as ssh:
        command = ["journalctl", "-u", UNIT, "-n", str(lines), "--no-pager", "-o", "short-iso"]
        _require_journal(ssh)
        with ssh.start([*command, *(["-f"] if follow else [])], root=_may_be_root(ssh)) as channel:
            _pass_on(ssh, channel, say, "journalctl")


def run(host: str, say: Say, config: Path | None = None, home: Home | None = None) -> int:
    """Run the release's daemon in the foreground, until it ends or is interrupted; its exit code.

    The service stands still meanwhile, and runs again afterwards if it did before, whatever became of the connection.
    """
    there = home or Home()
    program = [there.of("edgemaskd"), "run", there.settings]
    return by_hand(Destination.parse(host), lambda _: [program], say, config, there)


def by_hand(to: Destination, commands: Commands, say: Say, config: Path | None, home: Home) -> int:
    """Run programs on the device as its service would, one after the other; the exit code of the first that fails."""
    with Ssh(to, config) as ssh:
        facts = ask_facts(ssh, home)
        for command in commands(require_installed(ssh, facts)):
            script = sent("foreground", UNIT, USER, *command)
            with ssh.start(script, root=not facts.writable) as channel:
                code = _to_its_end(channel, say)
            if code:
                return code
    return 0


def _to_its_end(channel: Channel, say: Say) -> int:
    try:
        for line in channel.lines():
            say(line)
    except KeyboardInterrupt:
        channel.offer(b"stop\n")
        for line in channel.lines():
            say(line)
        channel.finish()
        raise
    done = channel.finish()
    for line in done.err.splitlines():
        say(line)
    return done.code


@contextmanager
def _changing(host: str, config: Path | None, home: Home) -> Iterator[tuple[Ssh, bool]]:
    """A connection to a device that something is installed on, and whether changing that takes root."""
    with Ssh(Destination.parse(host), config) as ssh:
        facts = ask_facts(ssh, home)
        require_installed(ssh, facts)
        yield ssh, not facts.writable


@contextmanager
def _installer(ssh: Ssh, facts: Facts, home: Home, tell: Tell) -> Iterator[list[str]]:
    """The device's own program; one that is brought along where that is gone or its Python is."""
    if facts.runs:
        yield home.device
        return
    from edgemask.wheels import runtime_wheel

    python = facts.python_for(dict.fromkeys(PYTHONS))
    if python is None:
        raise UserError(f"{ssh.destination}: has Python {facts.python}", "3.10 or above is needed: apt-get install it")
    inbox = Inbox(ssh, python[0])
    yield bare(python[0], inbox.send(Parcel.read(runtime_wheel()), tell))
    inbox.keep([])


def _require_journal(ssh: Ssh) -> None:
    if ssh.run(["journalctl", "--version"]).code:
        raise UserError(
            f"{ssh.destination}: has no journal", "its daemon is no service of systemd: see where it writes"
        )


def _may_be_root(ssh: Ssh) -> bool:
    """Root reads the whole journal; others may see their own alone, which is better than nothing."""
    try:
        return bool(ssh.root)
    except UserError:
        return False


def _pass_on(ssh: Ssh, channel: Channel, say: Say, what: str) -> None:
    for line in channel.lines():
        say(line)
    done = channel.finish()
    if done.code:
        said = done.err.strip().splitlines()[-1:] or [f"it ended with {done.code}"]
        raise UserError(f"{ssh.destination}: {what}: {said[0]}", f"try it there: {ssh.destination.command}")
