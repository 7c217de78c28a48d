"""Which disk a name stands for, and whether it may be overwritten: never one that this machine lives on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemask.device.tools import run, said
from edgemask.errors import UserError

COLUMNS = "NAME,KNAME,PATH,TYPE,SIZE,RO,RM,MODEL,VENDOR,SERIAL,TRAN,FSTYPE,LABEL,PKNAME,MOUNTPOINTS"
WHOLE = ("disk", "loop")
# What a part of something larger is called by blkid: overwriting it takes the larger thing down.
MEMBER, RAID_MEMBER = "_member", "_raid_member"
MEMBERS = {
    "LVM1_member": "LVM",
    "LVM2_member": "LVM",
    "zfs_member": "ZFS",
    "mpath_member": "a disk with several paths",
    "VMFS_volume_member": "VMFS",
    "bcache": "bcache",
    "bcachefs": "bcachefs",
    "stratis": "Stratis",
    "drbd": "DRBD",
    "drbdmanage_control_volume": "DRBD",
    "drbdproxy_datalog": "DRBD",
    "DM_snapshot_cow": "a snapshot",
    "ceph_bluestore": "Ceph",
    "swap": "swap space",
    "swsuspend": "a suspended system",
}
SYSTEM_PLACES = ("/", "/boot", "/boot/efi", "/boot/firmware", "/home", "/usr", "/var", "/nix/store", "[SWAP]")
SYSTEM_BLOCK = Path("/sys/class/block")
SUSPICIOUS_BYTES = 256 * 10**9
LIST = "lsblk -o NAME,SIZE,TYPE,MODEL,SERIAL,TRAN,MOUNTPOINTS shows what is there"


@dataclass(frozen=True)
class Disk:
    """A whole disk as the kernel knows it. `parts` are its partitions as people recognise them."""

    path: str
    name: str
    size: int
    model: str
    bus: str
    serial: str
    parts: tuple[str, ...]

    def text(self) -> str:
        """What a person needs to recognise it."""
        lines = [f"disk    {self.path}", f"model   {self.model or 'unknown'}", f"size    {self.size / 1e9:.1f} GB"]
        lines += [f"bus     {self.bus or 'unknown'}", f"serial  {self.serial or 'none'}"]
        return "\n".join([*lines, *(f"holds   {part}" for part in self.parts)])


def find_disk(path: Path, needed_bytes: int, *, any_size: bool = False) -> Disk:
    """The disk that may be overwritten; UserError says why it may not."""
    return chosen_disk(listed(path), str(path), needed_bytes, any_size=any_size)


def listed(path: Path) -> Mapping[str, Any]:
    """What lsblk tells of one device, with all that lies on it."""
    try:
        device = path.resolve(strict=True)
        kind = stat.S_IFMT(device.stat().st_mode)
    except OSError as error:
        raise UserError(f"{path}: {os.strerror(error.errno or 0)}", LIST) from error
    if kind != stat.S_IFBLK:
        raise UserError(f"{path}: is no disk", f"name a whole disk, as /dev/sdb; {LIST}")
    done = run(["lsblk", "--json", "--bytes", "--output", COLUMNS, str(device)])
    if done.returncode != 0:
        raise UserError(f"{path}: lsblk: {said(done)}", LIST)
    found: dict[str, Any] = json.loads(done.stdout)["blockdevices"][0]
    return {**found, "serial": found["serial"] or _serial(found["kname"])}


def _serial(kernel_name: str) -> str | None:
    """What the kernel itself tells, where no udev runs that lsblk could ask: containers, rescue systems."""
    for place in ("serial", "device/serial"):
        with suppress(OSError):
            return (SYSTEM_BLOCK / kernel_name / place).read_text().strip() or None
    return None


def chosen_disk(listing: Mapping[str, Any], shown: str, needed_bytes: int, *, any_size: bool = False) -> Disk:
    """Judge what lsblk told; UserError says why the disk may not be overwritten."""
    for reason, hint in _problems(listing, needed_bytes, any_size):
        raise UserError(f"{shown}: {reason}", hint)
    model = " ".join(filter(None, (_text(listing, "vendor"), _text(listing, "model"))))
    parts = tuple(_part(child) for child in listing.get("children", ()))
    size, serial = int(listing["size"]), _text(listing, "serial")
    return Disk(listing["path"], listing["name"], size, model, _text(listing, "tran"), serial, parts)


def _problems(listing: Mapping[str, Any], needed: int, any_size: bool) -> Iterator[tuple[str, str]]:
    if listing["type"] == "part":
        yield f"is a partition of /dev/{listing['pkname']}", f"name the whole disk: /dev/{listing['pkname']}"
    elif listing["type"] not in WHOLE:
        yield f"is no disk, but {listing['type']}", f"name a whole disk, as /dev/sdb; {LIST}"
    everything = list(_walk(listing))
    for one in everything:
        yield from _mounts(one)
    for one in everything:
        if larger := _larger(_text(one, "fstype")):
            hint = f"take another disk; if it is to go, first take it out: wipefs -a {one['path']}"
            yield f"{one['path']} is part of {larger}", hint
        if one is not listing and one["type"] != "part":
            yield f"{one['path']} ({one['type']}) is in use on it", "take another disk, or close what uses it"
    if listing["ro"]:
        yield "is read-only", "a card has a lock at its side"
    yield from _sizes(int(listing["size"] or 0), needed, any_size)


def _larger(kind: str) -> str | None:
    """What something of this kind is a part of."""
    if kind.endswith(RAID_MEMBER):
        return "a RAID"
    return MEMBERS.get(kind) or (kind.removesuffix(MEMBER) if kind.endswith(MEMBER) else None)


def _mounts(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    places = [place for place in one.get("mountpoints") or () if place]
    for place in places:
        if place in SYSTEM_PLACES:
            yield f"holds this machine's own system ({one['path']} is {place})", f"take another disk; {LIST}"
    for place in places:
        hint = f"is it the right disk? then: sudo umount {one['path']}"
        yield f"is in use: {one['path']} is mounted at {place}", hint


def _sizes(size: int, needed: int, any_size: bool) -> Iterator[tuple[str, str]]:
    if size == 0:
        yield "has no medium", "put the card into the reader"
    elif size < needed:
        yield f"is too small: {size / 1e9:.1f} GB, the image has {needed / 1e9:.1f} GB", "take a larger one"
    elif size > SUSPICIOUS_BYTES and not any_size:
        hint = "it looks like a computer's disk; if it is the right one, add --force-size"
        yield f"is larger than a card: {size / 1e9:.0f} GB", hint


def _walk(listing: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield listing
    for child in listing.get("children", ()):
        yield from _walk(child)


def _part(child: Mapping[str, Any]) -> str:
    what = ", ".join(filter(None, (_text(child, "fstype"), _text(child, "label"))))
    return f"{child['path']}, {int(child['size']) / 1e9:.1f} GB{', ' + what if what else ''}"


def _text(listing: Mapping[str, Any], key: str) -> str:
    return str(listing.get(key) or "").strip()
