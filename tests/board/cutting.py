"""Runs in a machine whose disk is recorded: installs one release, then the next with settings of the owner's.

It says on the disk what came through.

`python cutting.py MOUNTPOINT RELEASE RELEASE KEY`
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]


def main(place: str, first: str, second: str, key: str) -> None:
    from runtime.manager import managed

    from edgemask_runtime.install.durable import write
    from edgemask_runtime.install.installing import install
    from edgemask_runtime.install.layout import Layout
    from edgemask_runtime.install.switching import Device
    from edgemask_runtime.install.trusting import Order

    subprocess.run(["mount", "-t", "ext4", "/dev/vda", place], check=True)
    layout = Layout(Path(place, "root"), Path(place, "system"))
    folder = Path("/run/manager")
    folder.mkdir()
    with managed(layout, folder) as manager:
        device = Device(layout, manager, lambda step, done, of: print(step, done, of, flush=True), steady_s=0)
        own = Path("/run/own.toml")
        own.write_text("schema = 1\n# the owner's\n")
        for serial, (release, settings) in enumerate(((first, None), (second, own)), 1):
            install(device, Order(Path(release), enrol=Path(key), settings=settings))
            write(Path(place, f"came-through-{serial}"), b"")
    subprocess.run(["umount", place], check=True)
    print("recorded", flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent / "runtime")]
    main(*sys.argv[1:])
