"""The verbs of `edgemask` for devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.device.destination import known_names

if TYPE_CHECKING:
    from edgemask.device.flash import FlashOptions, Outcome, Plan
    from edgemask.device.home import Home


def _names(incomplete: str) -> list[str]:
    return [name for name in known_names() if name.startswith(incomplete)]


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the device, and change nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on to the next device after a failure.")] = False,
    yes: Yes = False,
    ssh_config: Config = None,
    json: Json = False,
) -> None:
    """Install a release on devices over ssh; exit 5 where one went back to the version before.

    Ctrl-C at any point leaves a device running what it ran; a connection that breaks off lets it come to its end.
    """
    from edgemask.device.destination import Destination
    from edgemask.device.flash import FlashOptions
    from edgemask.device.flash import flash as run
    from edgemask.device.showing import Steps
    from edgemask.listing import as_json

    options = FlashOptions(settings, enrol, allow_dev_key, dry_run, keep_going, ssh_config, home())
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
    return typer.confirm(question, err=True)
