"""Whether a release has expired, on boards whose clock starts anywhere.

A clock is believed between what has passed for certain and YEARS later. Outside of that it is plainly wrong, and what
has passed for certain is taken instead. Only signed dates become certain: a clock that was set wrong once, by whatever
way, must not rule releases out for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemask_runtime.errors import UserError
from edgemask_runtime.moments import seconds, text
from edgemask_runtime.trust.facts import Facts

if TYPE_CHECKING:
    from edgemask_runtime.release import ReleaseManifest

BORN_S = 1793491200
"""November 2026: there was no release before."""
YEARS = 20
YEAR_S = 31_556_952


def newest_after(newest_s: int, manifest: ReleaseManifest) -> int:
    """What has passed for certain once this release is committed; the clock has no say in it."""
    return max(newest_s, _seconds(manifest.date))


def check_expiry(manifest: ReleaseManifest, facts: Facts) -> tuple[str, ...]:
    """UserError for a release that has expired; else what is to be said of the clock, if anything."""
    certain_s = max(facts.newest_s, _seconds(manifest.date), BORN_S)
    believed = certain_s <= facts.clock_s <= certain_s + YEARS * YEAR_S
    now_s = facts.clock_s if believed else certain_s
    if manifest.expires is not None and now_s >= _seconds(manifest.expires):
        raise _expired(manifest.expires, now_s, believed=believed)
    return () if believed else (_wrong(facts.clock_s, certain_s),)


def _expired(expires: str, now_s: int, *, believed: bool) -> UserError:
    by = "by this device's clock" if believed else "at least, whatever the clock says"
    newer = "build a release with a later `expires`; what is installed runs on"
    hint = f"is the clock right? `timedatectl` tells and sets it. Else {newer}" if believed else newer
    return UserError(f"the release expired at {expires}: it is {text(now_s)} {by}", hint)


def _wrong(clock_s: int, certain_s: int) -> str:
    reason = "before" if clock_s < certain_s else f"more than {YEARS} years after"
    known = f"{reason} {text(certain_s)}, which has passed for certain"
    return f"the clock says {text(clock_s)}, {known}: expiry is judged by that; `timedatectl` sets the clock"


def _seconds(moment: str | None) -> int:
    return seconds(moment) if moment else 0
