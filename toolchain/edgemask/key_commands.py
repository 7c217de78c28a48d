"""The verbs of `edgemask` for the keys that sign releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemask.dialogue import new_passphrase
from edgemask.dialogue import passphrase as ask
from edgemask.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def keygen(
    name: Annotated[str | None, typer.Argument(help="The key's name: release, if not stated.")] = None,
    development: Annotated[bool, typer.Option("--development", help="The key of builds that are only tried.")] = False,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase for the key file.")] = False,
    json: Json = False,
) -> None:
    """Make a key that signs releases; an existing one is never overwritten."""
    from edgemask import signing
    from edgemask.listing import as_json

    asked = new_passphrase() if passphrase else None
    chosen = name or (signing.DEVELOPMENT if development else signing.RELEASE)
    made = signing.keygen(chosen, development=development, passphrase=asked)
    lines = (
        f"{made.path}: key {made.public.id}; keep it, and a copy of it, where nobody else can read it",
        f"{made.path.with_suffix('.pub')}: its public half; devices enrol it: --enrol FILE",
    )
    typer.echo(as_json(made.to_json()) if json else "\n".join(lines))


def keys(json: Json = False) -> None:
    """List your keys: name, id, and what a release's `keys.add` takes."""
    from edgemask import signing
    from edgemask.listing import as_json

    found = signing.key_files()
    if json:
        typer.echo(as_json([key.to_json() for key in found]))
        return
    lines = [f"{key.name:20} {key.public.id}  {key.public.text}  {key.path}" for key in found]
    typer.echo("\n".join(lines) or f"no keys in {signing.keys_folder()}; `edgemask keygen` makes one")


def sign(
    release: Annotated[Path, typer.Argument(help="A release, as `edgemask build` wrote it.")],
    key: Annotated[str | None, typer.Option(help="The name of a key, or a private key's file: release.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write signature.json there instead.")] = None,
    signature: Annotated[
        Path | None, typer.Option(help="Take the signatures in this signature.json, from another machine.")
    ] = None,
    json: Json = False,
) -> None:
    """Sign a release that is built already, beside its other signatures; one of the same key is replaced."""
    from dataclasses import asdict

    from edgemask import signing
    from edgemask.listing import as_json
    from edgemask.release_signatures import sign_release, take_signatures, who_signed
    from edgemask_runtime.release import Release

    if signature is not None and (key or out):
        raise UserError(
            "--signature takes signatures that were made already", "leave --key and --out away, or --signature"
        )
    if signature is None:
        sign_release(release, signing.load(key or signing.RELEASE, ask), out)
        signed = who_signed(Release.open(release)) if out is None else []
    else:
        signed = take_signatures(release, signature)
    lines = [f"{release}: signed by {one}" for one in signed] or [f"{out}: its signatures, for `--signature {out}`"]
    typer.echo(as_json([asdict(one) for one in signed]) if json else "\n".join(lines))
