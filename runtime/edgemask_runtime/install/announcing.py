"""What this device tells its network: a static service of Avahi, which has no code in the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from edgemask_runtime.errors import UserError
from edgemask_runtime.install import durable
from edgemask_runtime.install.layout import Layout
from edgemask_runtime.install.slots import Slot

MARK = "<!-- Put here by edgemask-device, which takes it away again. -->"
SSH_PORT = 22
TEXT = """<?xml version="1.0" standalone="no"?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
{mark}
<service-group>
  <name replace-wildcards="yes">Edgemask on %h</name>
  <service>
    <type>_edgemask._tcp</type>
    <port>{port}</port>
{records}
  </service>
</service-group>
"""


def announce(layout: Layout, tell: Callable[[str], None]) -> None:
    """Say which release runs, where Avahi is; a file that somebody else put there stays."""
    path = _place(layout)
    with _told(tell):
        durable.remove_parts(path)
        if path.parent.is_dir() and (_is_ours(path) or not path.exists()):
            text = _text(layout)
            if not path.exists() or path.read_text() != text:
                durable.write(path, text.encode())


def silence(layout: Layout, tell: Callable[[str], None]) -> None:
    """Say nothing any more."""
    with _told(tell):
        durable.remove_parts(path := _place(layout))
        if _is_ours(path):
            durable.remove(path)


@contextmanager
def _told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell of a fault and go on: what the network hears must not keep a version from its start or its return."""
    try:
        yield
    except (UserError, OSError) as error:
        tell(f"Avahi is not told: {error.message if isinstance(error, UserError) else error}")


def _text(layout: Layout) -> str:
    """The service is ssh's, for that is how a release comes here; the release is told beside it."""
    manifest = Slot(layout.current).manifest()
    told = {"release": manifest.name, "version": manifest.version, "serial": manifest.serial, "target": manifest.target}
    records = [f"    <txt-record>{escape(f'{name}={value}')}</txt-record>" for name, value in told.items()]
    return TEXT.format(mark=MARK, port=SSH_PORT, records="\n".join(records))


def _place(layout: Layout) -> Path:
    return layout.system / "etc/avahi/services/edgemask.service"


def _is_ours(path: Path) -> bool:
    return path.is_file() and MARK in path.read_text(errors="replace")
