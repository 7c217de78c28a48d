"""What the one who releases decides: numbers, dates, settings; nothing that is measured or found."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from edgemask.errors import UserError
from edgemask.signing import public_key
from edgemask_runtime import moments
from edgemask_runtime.moments import seconds
from edgemask_runtime.release import VERSION, KeyChanges
from edgemask_runtime.strict_json import LARGEST_EXACT
from edgemask_runtime.trust.keyring import KEY_ID

DATE = r"\d{4}-\d{2}-\d{2}"
EPOCH = "SOURCE_DATE_EPOCH"
MAX_EPOCH_S = 253402300799


@dataclass(frozen=True)
class ReleaseOptions:
    """Serial and lowest serial, the moment from which it is not installed, what people call it, and the settings.

    `expires` is a date (the whole day still counts as valid before it) or a moment in UTC; `version` None is the
    serial. `settings`: a file instead of the target's own. `also`: more bundles for the same target. `offline` takes
    wheels from the cache alone. `key`: the name or file of the key that signs, None for the development key. Devices
    that run this release trust the public keys `add_keys` (your names, or files), and those with `revoke_keys` no more.
    """

    serial: int = 1
    min_serial: int = 1
    expires: str | None = None
    version: str | None = None
    settings: Path | None = None
    also: tuple[Path, ...] = ()
    offline: bool = False
    key: str | None = None
    add_keys: tuple[str, ...] = ()
    revoke_keys: tuple[str, ...] = ()

    def check(self) -> None:
        """UserError for what no release can state; before anything is built."""
        if not 1 <= self.min_serial <= self.serial <= LARGEST_EXACT:
            hint = "serials count from 1 to 2^53; after this release a device takes none below --min-serial"
            raise UserError(f"--serial {self.serial} --min-serial {self.min_serial}", hint)
        if not re.fullmatch(VERSION, self.shown_version()):
            raise UserError(f"--version {self.version!r}", "letters, digits, space and . _ + ~ -, 64 at most")
        expiry, date = self.expiry(), source_date()
        if expiry and seconds(expiry) <= (seconds(date) if date else time.time()):
            raise UserError(f"--expires {self.expires}: that is over", "name a day to come, or leave it out")
        self.key_changes()

    def key_changes(self) -> KeyChanges:
        """How devices are to change the keys that they trust."""
        for key in self.revoke_keys:
            if not re.fullmatch(KEY_ID, key):
                raise UserError(f"--revoke-key {key!r}", "the id of a key, 16 hex digits: `edgemask keys` lists yours")
        return KeyChanges(tuple(_public(key) for key in self.add_keys), self.revoke_keys)

    def shown_version(self) -> str:
        """What people call it."""
        return str(self.serial) if self.version is None else self.version

    def expiry(self) -> str | None:
        """The moment from which it is not installed."""
        if self.expires is None:
            return None
        moment = f"{self.expires}T00:00:00Z" if re.fullmatch(DATE, self.expires) else self.expires
        try:
            seconds(moment)
        except ValueError as error:
            raise UserError(
                f"--expires {self.expires!r}", "a day, 2027-06-30, or in UTC 2027-06-30T12:00:00Z"
            ) from error
        return moment


def _public(key: str) -> str:
    """The raw public key of that name or in that file, in base64."""
    public = public_key(key)
    if public.development:
        raise UserError(f"--add-key {key}: a development key", "devices enrol one with --allow-dev-key, and no release")
    return public.text


def source_date() -> str | None:
    """The moment that the environment states as the date of the sources (SOURCE_DATE_EPOCH), None where it is unset."""
    stated = os.environ.get(EPOCH, "")
    if not stated:
        return None
    if not re.fullmatch(r"\d{1,12}", stated, re.ASCII) or int(stated) > MAX_EPOCH_S:
        raise UserError(f"{EPOCH}={stated}", "seconds since 1970 as a whole number: git log -1 --format=%ct")
    return moments.text(int(stated))
