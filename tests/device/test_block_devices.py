"""Which disks may be overwritten, from what lsblk tells of real ones; and lsblk's own word on this machine's disks."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgemask.device.block_devices import chosen_disk, find_disk
from edgemask.errors import UserError

GB = 10**9
CARD: dict[str, Any] = {
    "name": "sdb",
    "kname": "sdb",
    "path": "/dev/sdb",
    "type": "disk",
    "size": 31914983424,
    "ro": False,
    "rm": True,
    "model": "SD/MMC          ",
    "vendor": "Generic-",
    "serial": "20120501030900000",
    "tran": "usb",
    "fstype": None,
    "label": None,
    "pkname": None,
    "mountpoints": [None],
    "children": [
        {
            "name": "sdb1",
            "kname": "sdb1",
            "path": "/dev/sdb1",
            "type": "part",
            "size": 536870912,
            "ro": False,
            "rm": True,
            "model": None,
            "vendor": None,
            "serial": None,
            "tran": None,
            "fstype": "vfat",
            "label": "bootfs",
            "pkname": "sdb",
            "mountpoints": [None],
        }
    ],
}


def card(part: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The card, with changes to itself and to its partition."""
    changed = {**copy.deepcopy(CARD), **changes}
    if part:
        changed["children"][0].update(part)
    return changed


def below(kind: str, path: str) -> dict[str, Any]:
    return {**copy.deepcopy(CARD["children"][0]), "type": kind, "path": path, "fstype": None}


def test_a_card_is_taken_and_shown() -> None:
    disk = chosen_disk(card(), "/dev/sdb", 4 * GB)
    assert (disk.path, disk.name, disk.serial) == ("/dev/sdb", "sdb", "20120501030900000")
    assert disk.text().splitlines() == [
        "disk    /dev/sdb",
        "model   Generic- SD/MMC",
        "size    31.9 GB",
        "bus     usb",
        "serial  20120501030900000",
        "holds   /dev/sdb1, 0.5 GB, vfat, bootfs",
    ]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "root": (card({"mountpoints": ["/"]}), r"own system \(/dev/sdb1 is /\)"),
    "boot": (card({"mountpoints": [None, "/boot/efi"]}), r"own system \(/dev/sdb1 is /boot/efi\)"),
    "active swap": (card({"mountpoints": ["[SWAP]"], "fstype": "swap"}), "own system"),
    "swap": (card({"fstype": "swap"}), "/dev/sdb1 is part of swap space"),
    "mounted": (card({"mountpoints": ["/media/me/bootfs"]}), "/dev/sdb1 is mounted at /media/me/bootfs"),
    "mounted whole": (card(mountpoints=["/mnt"]), "/dev/sdb is mounted at /mnt"),
    "lvm": (card({"fstype": "LVM2_member"}), "is part of LVM"),
    "raid": (card(fstype="linux_raid_member"), "/dev/sdb is part of a RAID"),
    "zfs": (card({"fstype": "zfs_member"}), "is part of ZFS"),
    "volume": (card({"children": [below("lvm", "/dev/mapper/vg-home")]}), r"vg-home \(lvm\) is in use on it"),
    "luks": (card({"children": [below("crypt", "/dev/mapper/safe")]}), r"safe \(crypt\) is in use on it"),
    "array": (card(children=[below("raid1", "/dev/md0")]), r"/dev/md0 \(raid1\) is in use on it"),
    "partition": (card(type="part", pkname="sdb"), "is a partition of /dev/sdb"),
    "dvd": (card(type="rom"), "is no disk, but rom"),
    "mapped": (card(type="crypt"), "is no disk, but crypt"),
    "locked": (card(ro=True), "is read-only"),
    "empty reader": (card(size=0), "has no medium"),
    "small": (card(size=2 * GB), r"is too small: 2\.0 GB, the image has 4\.0 GB"),
    "large": (card(size=2000 * GB), "is larger than a card: 2000 GB"),
}


@pytest.mark.parametrize(
    ("kind", "larger"),
    [
        *((f"{maker}_raid_member", "a RAID") for maker in ("nvidia", "promise_fasttrack", "silicon_medley", "linux")),
        ("LVM1_member", "LVM"),
        ("mpath_member", "a disk with several paths"),
        ("VMFS_volume_member", "VMFS"),
        ("someones_member", "someones"),
        ("stratis", "Stratis"),
        ("bcachefs", "bcachefs"),
        ("drbdmanage_control_volume", "DRBD"),
        ("swsuspend", "a suspended system"),
    ],
)
def test_parts_of_what_nobody_opened_yet_are_refused(kind: str, larger: str) -> None:
    for listing in (card(fstype=kind), card({"fstype": kind})):
        with pytest.raises(UserError, match=f"is part of {larger}$"):
            chosen_disk(listing, "/dev/sdb", 4 * GB)


def test_every_member_that_blkid_knows_is_refused() -> None:
    """The words are those in the library itself."""
    libraries = [path for folder in ("/usr/lib", "/lib") for path in Path(folder).glob("*/libblkid.so.1")]
    if not libraries:
        pytest.skip("no libblkid here")
    words = re.findall(rb"[A-Za-z0-9_]+_member\b", libraries[0].read_bytes())
    assert len(words) > 10
    for word in words:
        with pytest.raises(UserError, match="is part of "):
            chosen_disk(card(fstype=word.decode()), "/dev/sdb", 4 * GB)


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_not_be_overwritten_is_refused(case: str) -> None:
    listing, reason = REFUSED[case]
    with pytest.raises(UserError, match=f"^/dev/sdb: .*{reason}") as caught:
        chosen_disk(listing, "/dev/sdb", 4 * GB)
    assert caught.value.hint


def test_a_mount_deep_inside_is_seen() -> None:
    volume = {**below("lvm", "/dev/mapper/vg-root"), "mountpoints": ["/"]}
    with pytest.raises(UserError, match=r"own system \(/dev/mapper/vg-root is /\)"):
        chosen_disk(card({"children": [volume]}), "/dev/sdb", GB)


def test_a_large_disk_is_taken_when_that_is_said() -> None:
    assert chosen_disk(card(size=2000 * GB), "/dev/sdb", GB, any_size=True).size == 2000 * GB


def test_the_size_alone_is_waived_by_that() -> None:
    with pytest.raises(UserError, match="own system"):
        chosen_disk(card({"mountpoints": ["/"]}, size=2000 * GB), "/dev/sdb", GB, any_size=True)


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", Path("/dev/null"), tmp_path):
        with pytest.raises(UserError, match="is no disk"):
            find_disk(path, 1)
    with pytest.raises(UserError, match="No such file"):
        find_disk(Path("/dev/edgemask-none"), 1)


def this_machines_root() -> str:
    """The block device of /, as findmnt knows it."""
    if not shutil.which("findmnt") or not shutil.which("lsblk"):
        pytest.skip("apt-get install util-linux")
    told = subprocess.run(["findmnt", "--json", "-o", "SOURCE", "/"], capture_output=True, check=True).stdout
    source: str = json.loads(told)["filesystems"][0]["source"].partition("[")[0]
    if not Path(source).is_block_device():
        pytest.skip(f"/ is on {source}")
    return source


def test_this_machines_own_disk_is_refused() -> None:
    with pytest.raises(UserError, match=r"own system|is a partition of|is no disk"):
        find_disk(Path(this_machines_root()), 1, any_size=True)
