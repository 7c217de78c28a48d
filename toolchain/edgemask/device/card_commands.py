"""What `edgemask flash` does where --to names no host, but an image file, a disk, or the system of a Jetson."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.dialogue import answer, ended_in_order
from edgemask.errors import UserError

if TYPE_CHECKING:
    from edgemask.device.card import Card

JETSON = "jetson-os"
Image = Annotated[Path | None, typer.Option(help="For a disk: the image of Raspberry Pi OS to write.")]
Out = Annotated[Path | None, typer.Option(help="For an image: where the prepared one goes; the one given stays.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="For an image: change the file itself.")]
Hostname = Annotated[str | None, typer.Option(help="For a card: the board's name on the network.")]
User = Annotated[str | None, typer.Option(help="For a card: a user to make, with --ssh-key.")]
SshKey = Annotated[Path | None, typer.Option(help="For a card: the public key that lets --user in.")]
DiskSerial = Annotated[str | None, typer.Option(help="For a disk, with --yes: the serial number of the one meant.")]
ForceSize = Annotated[bool, typer.Option("--force-size", help="For a disk: take one of more than 256 GB, too.")]


def is_no_host(to: str) -> bool:
    """Whether what --to names is for this module."""
    from edgemask.device.card import is_card

    return to == JETSON or is_card(to)


def check_for_hosts(options: Mapping[str, object]) -> None:
    """UserError where an option was given that means nothing to a device reached over ssh."""
    for name in (name for name, value in options.items() if value):
        raise UserError(f"--{name.replace('_', '-')} is for images and disks", "--to sd.img, or --to /dev/sdX")


def check_for_cards(encrypt_models: bool) -> None:
    """UserError for what only a running device can do: a card's key would lie beside what it encrypts."""
    if encrypt_models:
        hint = "once the board runs: edgemask flash RELEASE --to ssh://user@host --encrypt-models"
        raise UserError("--encrypt-models is for devices reached over ssh", hint)


def card_for(to: str, options: Mapping[str, Any], settings: Path | None, *, yes: bool, dry_run: bool) -> Card:
    """What the options say of a card."""
    from edgemask.device.card import Card, is_disk
    from edgemask.device.disk import Consent
    from edgemask.device.first_start import Wishes

    if dry_run:
        raise UserError("--dry-run is for devices", "an image that is given stays as it is: --out names another file")
    wishes = Wishes(options["hostname"], options["user"], options["ssh_key"], settings)
    serial = agreed_serial(yes, options["disk_serial"]) if is_disk(Path(to)) else None
    consent = Consent(ask, serial, options["force_size"])
    return Card(Path(to), consent, options["image"], options["out"], options["in_place"], wishes)


def agreed_serial(yes: bool, serial: str | None) -> str | None:
    """The serial number that stands for a person's word; UserError where only half of that is given."""
    if yes != (serial is not None):
        hint = "lsblk -o NAME,SIZE,MODEL,SERIAL shows the serial number"
        raise UserError("for a disk, --yes and --disk-serial come together", hint)
    return serial


def ask(question: str) -> str:
    """Ask a person; UserError where there is none."""
    if not sys.stdin.isatty():
        raise UserError("a disk's name must be typed, and there is no terminal", "for scripts: --yes --disk-serial X")
    return answer(question)


def flash_here(
    release: Path, to: Sequence[str], card: Card, enrol: Path | None, allow_dev_key: bool, json: bool
) -> None:
    """Flash the card, or print what a Jetson needs, and say what came of it."""
    if len(to) != 1:
        raise UserError("--to names an image, a disk or jetson-os beside others", "one of them at a time")
    if to[0] == JETSON:
        _show_jetson(release, json)
    else:
        _flash_card(release, card, enrol, allow_dev_key, json)


def _flash_card(release: Path, card: Card, enrol: Path | None, allow_dev_key: bool, json: bool) -> None:
    from edgemask.device.card import flash_card
    from edgemask.device.enrolment import enrolment_for
    from edgemask.device.showing import Steps
    from edgemask.listing import as_json
    from edgemask_runtime.release import Release

    opened, steps = Release.open(release), Steps()
    enrolment = enrolment_for(opened, enrol, allow_development=allow_dev_key)
    try:
        with ended_in_order():
            done = flash_card(opened, enrolment, card, steps)
    finally:
        steps.end()
    typer.echo(as_json(done.to_json()) if json else done.text())


def _show_jetson(release: Path, json: bool) -> None:
    from edgemask.device.jetson import help_text, help_values, modules_for
    from edgemask.listing import as_json
    from edgemask_runtime.release import Release

    modules = modules_for(Release.open(release).manifest)
    typer.echo(as_json(help_values(modules, str(release))) if json else help_text(modules, str(release)))
