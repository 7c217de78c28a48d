"""A release onto devices: checked here, asked for there, sent, installed by the device itself, and seen to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemask.device.destination import Destination
from edgemask.device.enrolment import signer_of, unknown_signer
from edgemask.device.facts import Facts, ask_facts
from edgemask.device.home import Home, change_device
from edgemask.device.preflight import Check, Sizes, check, installed_bytes, require, services
from edgemask.device.ssh import Ssh
from edgemask.device.upload import Inbox, Parcel, Tell
from edgemask.dialogue import error_values
from edgemask.errors import UserError
from edgemask_runtime.release import Release, title
from edgemask_runtime.trust import read_public

RUNTIME = "wheels/edgemask_runtime-"
FROM_WHEEL = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1));"
    " runpy.run_module('edgemask_runtime.install', run_name='__main__')"
)
"""Runs the installer that is in the wheel named first."""
Confirm = Callable[["Plan"], bool]
"""Asks a person whether this may be done."""


@dataclass(frozen=True)
class FlashOptions:
    """How it is to be done; `enrol` is a public key that the device is to trust, `config` stands for ~/.ssh/config.

    `encrypt_models` has the device encrypt them with a key of its own, now and in every update.
    """

    settings: Path | None = None
    enrol: Path | None = None
    allow_dev_key: bool = False
    encrypt_models: bool = False
    dry_run: bool = False
    keep_going: bool = False
    config: Path | None = None
    home: Home = field(default_factory=Home)


@dataclass(frozen=True)
class Plan:
    """What would be done on a device: what it is, what runs there now, and whether the release fits."""

    destination: Destination
    release: Release
    facts: Facts
    checks: tuple[Check, ...]
    sizes: Sizes

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "host": str(self.destination),
            "device": self.facts.model or self.facts.system,
            "installed": title(self.facts.installed) if self.facts.installed else None,
            "release": f"{self.release.manifest.name} {self.release.manifest.version}",
            "serial": self.release.manifest.serial,
            "send_bytes": self.sizes.missing,
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True)
class Outcome:
    """What came of it on one device: `installed` is what it runs now, or `error` why not."""

    host: str
    installed: dict[str, Any] | None = None
    plan: Plan | None = None
    error: UserError | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        error = error_values(self.error) if self.error else None
        plan = self.plan.to_json() if self.plan else None
        return {"host": self.host, "installed": self.installed, "plan": plan, "error": error}


class Package:
    """A release that was found sound here, who signed it, and the key that a device is to trust."""

    def __init__(self, path: Path, options: FlashOptions) -> None:
        self.release = Release.open(path)
        self.parcel = Parcel.read(path)
        self.signer = signer_of(self.release, options.enrol)
        self.key = read_public(options.enrol) if options.enrol else self.signer
        self.settings = Parcel.read(options.settings) if options.settings else None

    def runtime(self, version: str) -> Parcel:
        """The runtime's wheel, which installs the rest where nothing is installed yet that could."""
        names = [name for name in self.release.manifest.environments[version].wheels if name.startswith(RUNTIME)]
        if not names:
            raise UserError(f"{self.release.path}: brings no runtime along", "build it again: `edgemask build`")
        return Parcel.of(Path(names[0]).name, self.release.read(names[0]))


def flash(
    path: Path, to: Sequence[Destination], options: FlashOptions, tell: Tell, confirm: Confirm
) -> Iterator[Outcome]:
    """Install the release on one device after the other; stops after the first that fails unless told otherwise.

    UserError for a release that is not sound, before any device is asked.
    """
    package = Package(path, options)
    for destination in to:
        outcome = _one(package, destination, options, tell, confirm)
        yield outcome
        if outcome.error and not options.keep_going:
            return


def _one(package: Package, to: Destination, options: FlashOptions, tell: Tell, confirm: Confirm) -> Outcome:
    plan: Plan | None = None
    try:
        tell("connect", 0, 1)
        with Ssh(to, options.config) as ssh:
            plan = make_plan(ssh, package, options, tell)
            require(str(to), list(plan.checks))
            if options.dry_run or not confirm(plan):
                return Outcome(str(to), plan=plan)
            return Outcome(str(to), _install(ssh, package, plan, options, tell), plan)
    except UserError as error:
        return Outcome(str(to), plan=plan, error=error)


def make_plan(ssh: Ssh, package: Package, options: FlashOptions, tell: Tell) -> Plan:
    """Ask the device everything that the release wants to know."""
    tell("look", 0, 1)
    manifest = package.release.manifest
    packages = sorted({name for environment in manifest.environments.values() for name in environment.system})
    facts = ask_facts(ssh, options.home, packages, list(manifest.environments))
    program, version = facts.python_for(manifest.environments) or ("python3", facts.python)
    size = len(package.parcel.content)
    sizes = Sizes(size, size - Inbox(ssh, program).arrived(package.parcel), installed_bytes(package.release, version))
    manager = [] if options.home.program else [services(facts)]
    checks = [
        *check(facts, manifest, sizes, login=ssh.destination.command),
        *manager,
        *_rights(ssh, facts),
        *_keys(package, facts, options),
    ]
    return Plan(ssh.destination, package.release, facts, tuple(checks), sizes)


def _rights(ssh: Ssh, facts: Facts) -> Iterator[Check]:
    if facts.writable:
        return
    try:
        ssh.root  # noqa: B018
    except UserError as error:
        said = error.message.partition(": ")[2]
        yield Check("rights", said, "root, or sudo without a password", False, error.hint or "")


def _keys(package: Package, facts: Facts, options: FlashOptions) -> Iterator[Check]:
    """A first install enrols a key; later ones are the device's to judge, as long as what is installed there runs."""
    if not (facts.installed and facts.runs) and package.signer is None:
        fault = unknown_signer(package.release, options.enrol)
        yield Check("signature", fault.message, "one of the key that is enrolled", False, fault.hint or "")
    wanted = facts.installed is None or options.enrol is not None
    if package.key and package.key.development and wanted and not options.allow_dev_key:
        hint = "--allow-dev-key, to try it; for the field build it with a key of your own: edgemask keygen"
        yield Check("signature", "a development key", "a key for releases", False, hint)


def _install(ssh: Ssh, package: Package, plan: Plan, options: FlashOptions, tell: Tell) -> dict[str, Any]:
    home, facts = options.home, plan.facts
    program, version = facts.python_for(package.release.manifest.environments) or ("python3", facts.python)
    is_first = facts.installed is None
    inbox = Inbox(ssh, program)
    key = package.key if is_first or options.enrol else None
    enrol = Parcel.of(f"{key.id}.pub", key.to_pem()) if key else None
    wheel = None if facts.runs else package.runtime(version)
    inbox.keep([package.parcel])
    paths = {parcel: inbox.send(parcel, tell) for parcel in (package.parcel, wheel, enrol, package.settings) if parcel}
    runner = bare(program, paths[wheel]) if wheel else home.device
    command = [*runner, "install", paths[package.parcel], "--sha256", package.parcel.sha256]
    if enrol:
        command += ["--enrol", paths[enrol], *(["--allow-dev-key"] if options.allow_dev_key else [])]
    command += ["--encrypt-models"] if options.encrypt_models else []
    command += ["--settings", paths[package.settings]] if package.settings else []
    told = change_device(ssh, command, tell, root=not facts.writable, python=program)
    inbox.keep([])
    installed: dict[str, Any] = told["installed"]
    return installed


def bare(python: str, wheel: str) -> list[str]:
    """The installer that is in the runtime's wheel, run with the Python there of this name."""
    # Why -B: a user's folder is no place for what root compiles. -I: nor for modules of root's.
    return [python, "-I", "-B", "-c", FROM_WHEEL, wheel]
