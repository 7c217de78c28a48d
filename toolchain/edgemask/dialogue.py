"""How the command line speaks: what it asks a person, and what it tells a script of an error."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import typer

from edgemask.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


def confirm(question: str) -> bool:
    """Ask for yes or no; no is the default."""
    with _cancelled():
        return typer.confirm(question, err=True)


def answer(question: str) -> str:
    """Ask for a line, which may be empty."""
    with _cancelled():
        return str(typer.prompt(question, default="", show_default=False, err=True))


def passphrase(path: str) -> str:
    """Ask for the passphrase of a key's file."""
    with _cancelled():
        return str(typer.prompt(f"passphrase of {path}", hide_input=True, err=True))


def new_passphrase() -> str:
    """Ask for a passphrase, twice."""
    with _cancelled():
        return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True))


@contextmanager
def _cancelled() -> Iterator[None]:
    """Ctrl-C at a question is Ctrl-C; typer's own word for it ends with 1."""
    try:
        yield
    except typer.Abort:
        raise KeyboardInterrupt from None


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Being ended, or losing the terminal, is Ctrl-C inside: what is half written goes again."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # Why not those that are ignored: nohup means it.
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def told_in_json(command: Callable[P, R]) -> Callable[P, R]:
    """The command, which with `json` prints an error on standard output, too."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            if kwargs.get("json"):
                typer.echo(error_line(error))
            raise

    return run


def error_line(error: UserError) -> str:
    """The error as a line of JSON: message, hint, exit code."""
    from edgemask.listing import json_line

    return json_line({"error": error_values(error)})


def error_values(error: UserError) -> dict[str, str | int | None]:
    """The error as plain data."""
    return {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
