"""What goes wrong by a user's hand, and the one map from an error to an exit code."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import ClassVar

EXIT_OK, EXIT_BUG, EXIT_USER, EXIT_POLICY, EXIT_ALARM, EXIT_CANCELLED, EXIT_PIPE = 0, 1, 2, 3, 4, 130, 141


class UserError(Exception):
    """A fault that the user can mend: `message` says what is wrong, `hint` what to do about it."""

    exit_code: ClassVar[int] = EXIT_USER

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ModelDown(UserError):
    """The model's process is gone and is being started again: no answer for this frame, later ones may have one."""


def closest(word: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed word most like `word`, or None when none is near."""
    matches = difflib.get_close_matches(word, list(allowed), n=1)
    return matches[0] if matches else None


def unknown(what: str, word: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a word outside a closed list, with the closest match and the list."""
    words = sorted(allowed)
    match = closest(word, words)
    suggestion = f"did you mean {match!r}? " if match else ""
    return UserError(f"unknown {what} {word!r}", hint=f"{suggestion}allowed: {', '.join(words)}")


def one_line(error: BaseException, *, limit_chars: int = 300) -> str:
    """Return an error's own reason on one line, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit_chars else f"{text[:limit_chars]}..."


def run_main(command: Callable[[], int | None]) -> int:
    """Run a program's body and return its exit code.

    2 user error, 3 policy unmet, 4 alarm, 130 cancelled, 1 bug (with traceback).
    """
    try:
        return command() or EXIT_OK
    except UserError as error:
        report(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_CANCELLED
    except BrokenPipeError:
        return _closed_pipe()
    except Exception:
        traceback.print_exc()
        return EXIT_BUG


def report(error: UserError) -> None:
    """Print the error, and its hint if it has one, on standard error; for journald with its priority."""
    text = f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")
    priority = "<3>" if is_journal() else ""
    print(*(priority + line for line in text.splitlines()), sep="\n", file=sys.stderr)


def is_journal() -> bool:
    """Whether standard error is the journal's own socket, as systemd states it, and not redirected from there."""
    stated = os.environ.get("JOURNAL_STREAM")
    if not stated:
        return False
    status = os.fstat(sys.stderr.fileno())
    return stated == f"{status.st_dev}:{status.st_ino}"


def _closed_pipe() -> int:
    # Python flushes stdout once more at exit and would complain about the closed pipe there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_PIPE
