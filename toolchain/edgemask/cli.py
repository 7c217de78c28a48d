"""The command line: `edgemask`. No logic here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edgemask import __version__, key_commands
from edgemask.device import commands as device_commands
from edgemask.dialogue import passphrase, told_in_json

app = typer.Typer(
    help="Bake gradient-masking preprocessing into vision models, prove what it cuts, and pack the result for devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

MODEL = "A trained model: .onnx, .tflite, .keras, .h5, a SavedModel folder, .pt2, or .pt/.pth weights of a module."
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Masks = Annotated[
    list[str], typer.Option("--mask", help="A mask in front of the model: jpeg, jpeg:quality=75. Repeatable.")
]
Trained = Annotated[
    bool, typer.Option("--trained-with-mask", help="The model was trained with those masks that ask for it.")
]
InputShape = Annotated[str, typer.Option(help="The input's sizes where the model leaves them open: 1,224,224,3.")]
Module = Annotated[
    str, typer.Option(help="Your own code that makes the PyTorch module: package.module:factory. It is run.")
]
PublishKey = Annotated[
    Path | None,
    typer.Option(help="Bake the key in this file as a constant: whoever has the file then has the key."),
]
Frame = Annotated[
    str | None, typer.Option(help="What the camera delivers: nv12:1280x720, or nv12:1280x720,stride=1344,matrix=bt709.")
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A recipe, edgemask.toml.")]


Precision = Annotated[str | None, typer.Option(help="fp32, fp16 or int8, whatever the recipe says.")]
Calibrate = Annotated[Path | None, typer.Option(help="Real images that int8 is calibrated on: a folder, or .npz.")]
Judge = Annotated[Path | None, typer.Option(help="Other images, on which the answers must stay those of fp32.")]
KeepFloat = Annotated[list[str], typer.Option("--keep-float", help="A node that stays as it is. Repeatable.")]
MaxDrop = Annotated[float | None, typer.Option(help="The share of answers that may change.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgemask {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def bake(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The baked file; its suffix, .onnx or .tflite, decides the format.")
    ],
    model: Annotated[Path | None, typer.Argument(help=MODEL)] = None,
    mask: Masks = [],  # noqa: B006
    recipe: RecipeFile = None,
    trained_with_mask: Trained = False,
    publish_key: PublishKey = None,
    frame: Frame = None,
    precision: Precision = None,
    calibrate: Calibrate = None,
    judge: Judge = None,
    keep_float: KeepFloat = [],  # noqa: B006
    max_drop: MaxDrop = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the chain as a table.")] = False,
) -> None:
    """Bake masks and preprocessing into a trained model.

    The file is run against the reference before it is written.
    """
    from edgemask import bake as run
    from edgemask import explain as explained
    from edgemask.listing import proof_text
    from edgemask.quantisation.options import chosen

    baked = run(
        model,
        out,
        masks=mask,
        recipe=recipe,
        trained_with_mask=trained_with_mask,
        publish_key=publish_key,
        frame=frame,
        precision=chosen(precision, calibrate, judge, keep_float, max_drop),
    )
    if explain:
        typer.echo(explained(baked) + "\n")
    for note in baked.artefact.label.assumed:
        typer.echo(f"note: {note}; state it in a recipe (edgemask init)", err=True)
    typer.echo(f"{out}: {len(baked.artefact.model.data):,} bytes\n{proof_text(baked.proof.to_json())}")


@app.command()
def inspect(
    artefact: Annotated[Path, typer.Argument(help="A model file, baked or not, or a .release.")],
    key: Annotated[
        str | None, typer.Option(help="A public key, NAME.pub, or the name of one of yours, that must have signed it.")
    ] = None,
    json: Json = False,
) -> None:
    """Walk a file's own graph: its steps, which of them cut the gradient, and the proof; or say what a release is."""
    from edgemask import inspect as run
    from edgemask.listing import as_json, inspection_text
    from edgemask.releasing.showing import FORMAT, inspected_text

    found = run(artefact, key)
    text = inspected_text if found["format"] == FORMAT else inspection_text
    typer.echo(as_json(found) if json else text(found))


@app.command()
def verify(
    artefact: Annotated[Path, typer.Argument(help="A baked file.")],
    source: Annotated[Path | None, typer.Option(help="The trained model that was baked.")] = None,
    recipe: RecipeFile = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images, or one image.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled images, a folder or .npz: measure the task.")] = None,
    also: Annotated[list[Path], typer.Option(help="With --data: another baked file to measure. Repeatable.")] = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, help="With --data: take so many images at most.")] = None,
    max_drop: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="With --data: how much worse.")] = None,
    key: Annotated[Path | None, typer.Option(help="With --data: the key of keyed masks.")] = None,
    json: Json = False,
) -> None:
    """Compare a baked file with the reference chain and the trained model; exit 1 if they differ.

    With --data: measure it on labelled images beside the trained model; exit 1 if it is worse by more than --max-drop.
    """
    from edgemask.listing import as_json, parity_text

    if data is not None:
        _measure(artefact, data, source, recipe, also, limit, max_drop, key, json)
    from edgemask import verify as run

    parity = run(artefact, source=source, recipe=recipe, images=images)
    typer.echo(as_json(parity.to_json()) if json else parity_text(parity))
    raise typer.Exit(0 if parity.passed else 1)


def _measure(
    artefact: Path,
    data: Path,
    source: Path | None,
    recipe: Path | None,
    also: list[Path],
    limit: int | None,
    max_drop: float | None,
    key: Path | None,
    json: bool,
) -> None:
    from edgemask import measure as run
    from edgemask.listing import as_json
    from edgemask.metrics.table import measured_text

    measured = run(artefact, data, source=source, recipe=recipe, also=also, key=key, limit=limit, progress=_progress)
    typer.echo(as_json(measured.to_json()) if json else measured_text(measured))
    raise typer.Exit(0 if max_drop is None or measured.drop("baked", "source") <= max_drop else 1)


def _progress(numbers: Iterable[int], count: int) -> Iterator[int]:
    """A bar on the terminal's standard error, if it is one."""
    with typer.progressbar(numbers, length=count, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


@app.command()
def init(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write the recipe.")] = Path("edgemask.toml"),
    mask: Masks = [],  # noqa: B006
    trained_with_mask: Trained = False,
    frame: Frame = None,
    preprocess: Annotated[
        str | None, typer.Option(help="What was done in training: imagenet, yolo or inception.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing recipe.")] = False,
    input_shape: InputShape = "",
    module: Module = "",
) -> None:
    """Write a recipe from what a model tells of itself."""
    from edgemask import init as run

    open_ends = {"input_shape": input_shape or None, "module": module or None}
    written = run(
        model,
        out,
        masks=mask,
        force=force,
        trained_with_mask=trained_with_mask,
        frame=frame,
        preprocess=preprocess,
        **open_ends,
    )
    typer.echo(f"{written}: check what it says, then `edgemask build {written} --target host`")


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The converted file, .onnx or .tflite.")],
    input_shape: InputShape = "",
    module: Module = "",
) -> None:
    """Convert a model to ONNX or TFLite and check it against its source."""
    from edgemask import convert as run
    from edgemask.listing import conversion_text

    typer.echo(conversion_text(out, run(model, out, input_shape=input_shape or None, module=module or None)))


@app.command()
def predict(
    artefact: Annotated[Path, typer.Argument(help="A baked file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    key: Annotated[Path | None, typer.Option(help="The key of keyed masks; its owner's alone (chmod 600).")] = None,
    json: Json = False,
) -> None:
    """Answer for image files, one line each."""
    from edgemask import predict as run
    from edgemask.listing import answer_text, json_line

    for answer in run(artefact, images, key=key):
        typer.echo(json_line(answer) if json else answer_text(answer))


@app.command()
def quantise(
    recipe: Annotated[Path, typer.Argument(help="A recipe, edgemask.toml.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write the quantised model alone.")] = None,
    precision: Precision = None,
    calibrate: Calibrate = None,
    judge: Judge = None,
    keep_float: KeepFloat = [],  # noqa: B006
    max_drop: MaxDrop = None,
    json: Json = False,
) -> None:
    """Show what a precision costs, layer by layer, and how many answers change; exit 1 if too many do."""
    from edgemask import quantise as run
    from edgemask.listing import as_json, quantisation_text
    from edgemask.quantisation.options import chosen

    found = run(recipe, out, precision=chosen(precision, calibrate, judge, keep_float, max_drop))
    typer.echo(as_json(found.to_json()) if json else quantisation_text(found))
    raise typer.Exit(0 if found.passed else 1)


@app.command()
def masks(json: Json = False) -> None:
    """List every step that a recipe can name, with its parameters."""
    from edgemask.listing import as_json, catalogue_text, presets_text, step_catalogue

    typer.echo(as_json(step_catalogue()) if json else f"{catalogue_text()}\n\n{presets_text()}")


@app.command()
def calibrate(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a detector, such as feature-squeeze.")],
    images: Annotated[Path, typer.Option(help="A folder of clean images, not those the model was trained on.")],
    rate: Annotated[float, typer.Option(help="The share of clean images that may be called suspicious.")] = 0.05,
    json: Json = False,
) -> None:
    """Find a detector's threshold from clean images and a false-positive rate."""
    from edgemask import calibrate as run
    from edgemask.listing import as_json, calibration_text

    found = run(recipe, images, rate)
    typer.echo(as_json(found.to_json()) if json else calibration_text(found))


@app.command()
def audit(
    recipe: Annotated[Path, typer.Argument(help="A recipe, edgemask.toml, whose model tells classes apart.")],
    data: Annotated[Path, typer.Option(help="Labelled images: a folder of folders, or .npz with x and y.")],
    eps: Annotated[
        str | None, typer.Option(help="How far the attacker may move a frame: 8/255 (the default) or 0.03.")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf (the default), or l2 over all values.")] = None,
    budget: Annotated[str | None, typer.Option(help="quick (the default), standard or full.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for audit.json and audit.html.")] = Path(
        "build/audit"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many images at most.")] = None,
    key: Annotated[Path | None, typer.Option(help="The key of keyed masks; its owner's alone (chmod 600).")] = None,
    min_robust_accuracy: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The share that must be left to be called empirically robust (0.5)."),
    ] = None,
    compare: Annotated[list[str], typer.Option(help="NAME=MODEL: another trained model beside it. Repeatable.")] = [],  # noqa: B006
    workers: Annotated[int, typer.Option(min=0, help="Processes side by side; 0 is one a processor.")] = 0,
    ray: Annotated[str | None, typer.Option(help="Run on a Ray cluster of your own: HOST:PORT, or local.")] = None,
    resume: Annotated[bool, typer.Option(help="Keep what an earlier run found.")] = True,
    json: Json = False,
) -> None:
    """Attack the file that a recipe makes, naively and adapted to its masks, and say what is left.

    What is not given is as the recipe's [policy] has it; exit 3 where the verdict does not meet that. Needs PyTorch:
    pip install 'edgemask[audit]'. An audit can break a model; it cannot prove one secure.
    """
    from edgemask import audit as run
    from edgemask.listing import as_json, audit_text

    with _counted("attacks") as progress:
        report = run(
            recipe,
            data,
            eps=eps,
            norm=norm,
            budget=budget,
            out=out,
            limit=limit,
            key=key,
            min_robust_accuracy=min_robust_accuracy,
            compare=compare,
            workers=workers,
            ray=ray,
            resume=resume,
            progress=progress,
        )
    typer.echo(as_json(report.to_json()) if json else f"{audit_text(report.to_json())}\npage  {out / 'audit.html'}")
    report.require_policy()


@contextmanager
def _counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's standard error, if it is one, that is told how far it is."""
    with typer.progressbar(length=1, label=what, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def tell(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield tell


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="One of them, in detail.")] = None, json: Json = False
) -> None:
    """List the boards that bundles and releases can be built for."""
    from edgemask.listing import as_json
    from edgemask.target import find_target
    from edgemask.target_listing import target_list, target_text, target_values, targets_text

    if json:
        typer.echo(as_json(target_values(find_target(name)) if name else target_list()))
    else:
        typer.echo(target_text(name) if name else targets_text())


@app.command()
def doctor(json: Json = False) -> None:
    """Say what works on this machine and what to install for the rest; exit 1 if the core does not."""
    from edgemask import doctor as run
    from edgemask.listing import as_json, health_text

    found = run()
    typer.echo(as_json(found.to_json()) if json else health_text(found))
    raise typer.Exit(0 if found.works else 1)


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="A recipe, edgemask.toml.")],
    target: Annotated[str, typer.Option(help="The board: see `edgemask targets`.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for bundle and report.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images for parity, instead of the recipe's.")] = None,
    trained_with_mask: Trained = False,
    publish_key: PublishKey = None,
    precision: Precision = None,
    calibrate: Calibrate = None,
    judge: Judge = None,
    keep_float: KeepFloat = [],  # noqa: B006
    max_drop: MaxDrop = None,
    audit: Annotated[
        list[Path],
        typer.Option(help="What `edgemask audit` wrote of this file, if not build/audit. Repeatable."),
    ] = [],  # noqa: B006
    release: Annotated[
        bool | None, typer.Option(help="Make the signed release, too; if not stated, for boards and not for host.")
    ] = None,
    serial: Annotated[int, typer.Option(help="The release's number; devices take none below their floor.")] = 1,
    min_serial: Annotated[int, typer.Option(help="The floor of devices that run this release.")] = 1,
    expires: Annotated[str | None, typer.Option(help="The day from which it is not installed: 2027-06-30.")] = None,
    version: Annotated[str | None, typer.Option(help="What people call the release, if not its serial.")] = None,
    settings: Annotated[Path | None, typer.Option(help="Settings of your own for the device, TOML.")] = None,
    also: Annotated[list[Path], typer.Option(help="Another bundle that goes along. Repeatable.")] = [],  # noqa: B006
    offline: Annotated[bool, typer.Option("--offline", help="Take wheels from the cache alone.")] = False,
    key: Annotated[str | None, typer.Option(help="The key that signs: its name or file (edgemask keys).")] = None,
    add_key: Annotated[list[str], typer.Option(help="A public key that devices trust from now on. Repeatable.")] = [],  # noqa: B006
    revoke_key: Annotated[list[str], typer.Option(help="The id of one that they do not any more. Repeatable.")] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Bake, verify on real images, and write the bundle and the signed release for a board.

    Exit 3 if no audit meets the recipe's policy.
    """
    from edgemask import ReleaseOptions
    from edgemask import build as run
    from edgemask.listing import as_json, built_text, built_values
    from edgemask.quantisation.options import chosen
    from edgemask.releasing.command import released, wanted

    options = ReleaseOptions(
        serial, min_serial, expires, version, settings, tuple(also), offline, key, tuple(add_key), tuple(revoke_key)
    )
    releases = wanted(target, release, options)
    built = run(
        recipe,
        target,
        out,
        images=images,
        trained_with_mask=trained_with_mask,
        publish_key=publish_key,
        precision=chosen(precision, calibrate, judge, keep_float, max_drop),
        audits=audit,
    )
    if not releases:
        typer.echo(as_json(built_values(built)) if json else built_text(built))
        return
    values, text = released(built, options, passphrase)
    typer.echo(as_json(built_values(built) | {"release": values}) if json else f"{built_text(built)}\n\n{text}")


for command in (key_commands.keygen, key_commands.keys, key_commands.sign, *device_commands.COMMANDS):
    app.command()(command)
for registered in app.registered_commands:
    # Why not audit: what it prints is the report, whatever the policy says of it.
    if registered.callback and registered.callback is not audit:
        registered.callback = told_in_json(registered.callback)


def main() -> None:
    """Run the command line; exit 2 for a user's error, 3 policy unmet, 130 cancelled, 1 a bug or failed parity."""
    from edgemask.errors import run_main

    sys.exit(run_main(app))
