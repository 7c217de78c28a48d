"""What `edgemask build` does beside the bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemask.bundle import Built
from edgemask.errors import UserError
from edgemask.releasing.making import DEFAULTS, release
from edgemask.releasing.options import ReleaseOptions
from edgemask.releasing.progress import fetching
from edgemask.releasing.showing import released_text, released_values
from edgemask.target import find_target


def wanted(target: str, asked: bool | None, options: ReleaseOptions) -> bool:
    """Whether a release is made: for boards, and for any machine when asked or when an option is about it.

    UserError, before anything is built, for options that no release can have.
    """
    about_it = options != DEFAULTS
    if asked is False and about_it:
        raise UserError("--no-release, and options of a release", "leave one of both out")
    options.check()
    return (find_target(target).arch != "any" or about_it) if asked is None else asked


def released(built: Built, options: ReleaseOptions, ask: Callable[[str], str]) -> tuple[dict[str, Any], str]:
    """Make the release; what it is, as plain data and for reading."""
    with fetching() as tell:
        made = release(built, options, tell=tell, ask=ask)
    return released_values(made), released_text(made)
