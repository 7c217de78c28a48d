"""Take files in, as far as they come: `python3 -I -c TEXT VERB WORDS...`.

`offer NAME` tells how much of a file is here already. `receive NAME SIZE OFFSET OFFERED` takes what comes behind OFFSET
from standard input and tells of the whole, unless there are not OFFERED bytes here any more. `keep NAME...` removes all
others. What is told is JSON on one line.
"""

import errno
import fcntl
import hashlib
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK = 1 << 18
PATIENCE_S = 30


def inbox() -> Path:
    """A folder for this user alone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgemask", "incoming")


def told(path: Path) -> "dict[str, Any]":
    """How long a file is, and its sha256; one that is not there is empty."""
    found, size = hashlib.sha256(), 0
    if path.exists():
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                found.update(chunk)
                size += len(chunk)
    return {"bytes": size, "sha256": found.hexdigest(), "path": str(path)}


def busy(*_: Any) -> None:
    """Give up waiting."""
    raise BlockingIOError


class Moved(Exception):
    """The file is not any more what the sender was told of."""


def receive(path: Path, size: int, offset: int, offered: int) -> None:
    """Add what comes behind the first `offset` bytes, up to `size`; what came stays, whatever ends it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("ab") as file:
        # Who received before, and lost the connection, may still be bringing it to the disk.
        signal.signal(signal.SIGALRM, busy)
        signal.alarm(PATIENCE_S)
        fcntl.flock(file, fcntl.LOCK_EX)
        signal.alarm(0)
        # Why: who sent it before may be installing from it now, and it must not become shorter meanwhile.
        if os.fstat(file.fileno()).st_size != offered:
            raise Moved
        if offset != offered:
            file.truncate(offset)
        try:
            while offset < size:
                chunk = os.read(0, CHUNK)
                if not chunk:
                    break
                file.write(chunk)
                file.flush()
                offset += len(chunk)
        finally:
            os.fsync(file.fileno())


def tidy(folder: Path, keep: "list[str]") -> None:
    """Remove what else was left here and nobody is sending."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in keep:
            with suppress(BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def main() -> None:
    """Do what is asked and tell."""
    verb, words = sys.argv[1], sys.argv[2:]
    try:
        folder = inbox()
        if verb == "keep":
            tidy(folder, words)
        elif verb == "receive":
            receive(folder / words[0], *map(int, words[1:]))
        print(json.dumps({} if verb == "keep" else told(folder / words[0])))
    except Moved:
        print(json.dumps({"fault": "moved"}))
    except BlockingIOError:
        print(json.dumps({"fault": "busy"}))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        print(json.dumps({"fault": "full" if full else "error", "reason": str(error)}))


main()
