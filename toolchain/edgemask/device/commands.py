"""The verbs of `edgemask` for devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.device import card_commands
from edgemask.device.destination import known_names
from edgemask.dialogue import confirm

if TYPE_CHECKING:
    from edgemask.device.flash import FlashOptions, Outcome, Plan
    from edgemask.device.home import Home


def _names(incomplete: str) -> list[str]:
    return [name for name in known_names() if name.startswith(incomplete)]


FILES = (".onnx", ".tflite", ".edgemask", ".release")
HOST = "A device: ssh://user@host:port, user@host, or a name in ~/.ssh/config."
Host = Annotated[str, typer.Argument(help=HOST, autocompletion=_names)]
Config = Annotated[Path | None, typer.Option("--ssh-config", help="A configuration of ssh instead of ~/.ssh/config.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def home() -> Home:
    """Where Edgemask is on devices."""
    from edgemask.device.home import Home

    return Home()


def flash(
    release: Annotated[Path, typer.Argument(help="What `edgemask build` made for the board: a .release file.")],
    to: Annotated[
        list[str], typer.Option("--to", help=f"{HOST} Repeatable: one after the other.", autocompletion=_names)
    ],
    settings: Annotated[
        Path | None, typer.Option(help="Device settings of your own, in place of the release's.")
    ] = None,
    enrol: Annotated[Path | None, typer.Option(help="A public key, NAME.pub, that the device is to trust.")] = None,
    allow_dev_key: Annotated[
        bool, typer.Option("--allow-dev-key", help="Let a device trust the key for trials.")
    ] = False,
    encrypt_models: Annotated[
        bool, typer.Option("--encrypt-models", help="Encrypt models with a key of the device, from now on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the device, and change nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on to the next device after a failure.")] = False,
    image: card_commands.Image = None,
    out: card_commands.Out = None,
    in_place: card_commands.InPlace = False,
    hostname: card_commands.Hostname = None,
    user: card_commands.User = None,
    ssh_key: card_commands.SshKey = None,
    disk_serial: card_commands.DiskSerial = None,
    force_size: card_commands.ForceSize = False,
    yes: Yes = False,
    ssh_config: Config = None,
    json: Json = False,
) -> None:
    """Install a release on devices over ssh; exit 5 where one went back to the version before.

    Ctrl-C at any point leaves a device running what it ran; a connection that breaks off lets it come to its end.

    --to sd.img puts it into an image of Raspberry Pi OS, --to /dev/sdX writes such an image to a disk: the board then
    installs it at its first start. --to jetson-os prints how NVIDIA's system gets onto a Jetson.
    """
    on_card = {"image": image, "out": out, "in_place": in_place, "hostname": hostname, "user": user}
    on_card |= {"ssh_key": ssh_key, "disk_serial": disk_serial, "force_size": force_size}
    if any(map(card_commands.is_no_host, to)):
        card_commands.check_for_cards(encrypt_models)
        card = card_commands.card_for(to[0], on_card, settings, yes=yes, dry_run=dry_run)
        return card_commands.flash_here(release, to, card, enrol, allow_dev_key, json)
    card_commands.check_for_hosts(on_card)
    from edgemask.device.destination import Destination
    from edgemask.device.flash import FlashOptions
    from edgemask.device.flash import flash as run
    from edgemask.device.showing import Steps
    from edgemask.listing import as_json

    options = FlashOptions(settings, enrol, allow_dev_key, encrypt_models, dry_run, keep_going, ssh_config, home())
    steps = Steps()
    outcomes: list[Outcome] = []
    for outcome in run(release, [Destination.parse(text) for text in to], options, steps, _asker(steps, options, yes)):
        steps.end()
        outcomes.append(outcome)
        _show_outcome(outcome, options, json)
    if json:
        typer.echo(as_json([outcome.to_json() for outcome in outcomes]))
    failed = [outcome.error for outcome in outcomes if outcome.error]
    raise typer.Exit(failed[0].exit_code if failed else 0)


def _show_outcome(outcome: Outcome, options: FlashOptions, json: bool) -> None:
    from edgemask.device.showing import installed_text, plan_text
    from edgemask_runtime.errors import report

    if outcome.error:
        report(outcome.error)
    elif json:
        return
    elif outcome.installed:
        typer.echo(installed_text(outcome.host, outcome.installed))
    elif outcome.plan and options.dry_run:
        typer.echo(plan_text(outcome.plan))
    else:
        typer.echo(f"{outcome.host}: left as it is")


def _asker(steps: Any, options: FlashOptions, yes: bool) -> Callable[[Plan], bool]:
    from edgemask.device.showing import plan_text

    def ask(plan: Plan) -> bool:
        if yes:
            return True
        steps.end()
        typer.echo(plan_text(plan), err=True)
        return confirmed("install it?")

    return ask


def confirmed(question: str) -> bool:
    """Ask a person; UserError where there is none to ask."""
    import sys

    from edgemask.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody can be asked here: standard input is no terminal", "--yes does not ask")
    return confirm(question)


def _left(host: str, json: bool) -> None:
    """Say that a person did not want it."""
    from edgemask.listing import as_json

    typer.echo(as_json({"host": host, "done": False}) if json else f"{host}: left as it is")


def status(host: Host, ssh_config: Config = None, json: Json = False) -> None:
    """Say what runs on a device, how it is, what is installed beside it, and what failed last."""
    from edgemask.device.showing import status_text
    from edgemask.device.verbs import status as run
    from edgemask.listing import as_json

    told = run(host, ssh_config, home())
    typer.echo(as_json(told) if json else status_text(host, told))


def logs(
    host: Host,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it says more.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="So many lines at first.")] = 100,
    ssh_config: Config = None,
    json: Json = False,
) -> None:
    """Show what the daemon said on a device: the journal of its service."""
    from edgemask.device.verbs import logs as run
    from edgemask.listing import json_line

    run(
        host,
        lambda line: typer.echo(json_line({"line": line}) if json else line),
        ssh_config,
        lines=lines,
        follow=follow,
    )


def rollback(host: Host, yes: Yes = False, ssh_config: Config = None, json: Json = False) -> None:
    """Go back to the version that ran on a device before; exit 5 where that does not run either."""
    from edgemask.device.showing import Steps, installed_text
    from edgemask.device.verbs import rollback as run
    from edgemask.listing import as_json

    if not yes and not confirmed(f"{host}: go back to the version before?"):
        _left(host, json)
        return
    steps = Steps()
    try:
        installed = run(host, steps, ssh_config, home())
    finally:
        steps.end()
    typer.echo(as_json({"host": host, "installed": installed}) if json else installed_text(host, installed))


def run(host: Host, ssh_config: Config = None, json: Json = False) -> None:
    """Run a device's release in the foreground, in place of its service; Ctrl-C ends it, and the service goes on."""
    from edgemask.device.verbs import run as by_hand
    from edgemask.listing import json_line

    say = lambda line: typer.echo(json_line({"line": line}) if json else line)  # noqa: E731
    raise typer.Exit(by_hand(host, say, ssh_config, home()))


def uninstall(
    host: Host,
    purge: Annotated[bool, typer.Option("--purge", help="The owner's settings and keys, too.")] = False,
    yes: Yes = False,
    ssh_config: Config = None,
    json: Json = False,
) -> None:
    """Stop the daemon on a device and take away all that was installed there."""
    from edgemask.device.showing import Steps
    from edgemask.device.verbs import uninstall as run
    from edgemask.listing import as_json

    if not yes and not confirmed(f"{host}: stop the daemon and remove both versions{', settings and keys' * purge}?"):
        _left(host, json)
        return
    steps = Steps()
    try:
        removed = run(host, steps, ssh_config, home(), purge=purge)
    finally:
        steps.end()
    lines = [f"{host}: removed {path}" for path in removed] or [f"{host}: there was nothing"]
    typer.echo(as_json({"host": host, "removed": removed}) if json else "\n".join(lines))


def bench(
    what: Annotated[
        str, typer.Argument(help=f"A baked file, a bundle or a release, here; or {HOST}", autocompletion=_names)
    ],
    runs: Annotated[int, typer.Option(min=10, help="So many inferences.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    yes: Yes = False,
    ssh_config: Config = None,
    json: Json = False,
) -> None:
    """Time a model and each step of its chain, on this machine, or on a device while its service stands still."""
    from edgemask.benching import bench_device, bench_file
    from edgemask.device.showing import Steps, bench_text
    from edgemask.listing import as_json

    file, steps = Path(what), Steps()
    is_here = file.exists() or file.suffix in FILES
    if not (is_here or yes or confirmed(f"{what}: stop its daemon for as long as this takes?")):
        _left(what, json)
        return
    try:
        if is_here:
            told = bench_file(file, runs, threads, steps)
        else:
            told = bench_device(what, runs, threads, ssh_config, home(), steps)
    finally:
        steps.end()
    typer.echo(as_json(told) if json else "\n\n".join(map(bench_text, told)))


def devices(
    wait: Annotated[float, typer.Option(min=0.1, max=60, help="Listen for so many seconds.")] = 3.0,
    interface: Annotated[
        list[str], typer.Option(help="An address of this machine's, to ask there alone. Repeatable.")
    ] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """List what announces itself on this network: devices with Edgemask, and hosts that take ssh."""
    from edgemask.device.discovery import devices as run
    from edgemask.device.showing import Steps, devices_text
    from edgemask.listing import as_json

    steps = Steps()
    try:
        found = run(wait, interface, steps)
    finally:
        steps.end()
    typer.echo(as_json([one.to_json() for one in found]) if json else devices_text(found))


COMMANDS = (flash, status, logs, rollback, run, uninstall, bench, devices)
