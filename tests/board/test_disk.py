"""A card written to a real disk of an emulated kernel: /dev/vda with a serial number, partitions and mounts."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
from device.cards import MB, make_card, needs_tools, raspberry_tree
from device.prepared import own_key, signed_release
from runtime.tiny import MakeBundle

from edgemask.device.filesystems import Ext4
from edgemask.device.first_start import PLACE
from edgemask.device.partitions import partitions

from .vm import run_on_another_kernel

pytestmark = [pytest.mark.board, pytest.mark.slow]
SCRIPT = Path(__file__).parent / "disk.py"
DISK_BYTES = 200 * MB


def test_a_disk_gets_its_card(make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_tools()
    own_key(monkeypatch, tmp_path / "config")
    signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    card = make_card(tmp_path / "raspios.img", raspberry_tree(tmp_path / "os"))
    (tmp_path / "raspios.img.gz").write_bytes(gzip.compress(card.read_bytes(), 1))
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    drive = f"if=none,id=d,file={disk},format=raw,cache=writeback"
    told = run_on_another_kernel(
        f"{sys.executable} {SCRIPT} {tmp_path}",
        tmp_path,
        extra_modules=("virtio_blk", "ext4"),
        devices=("-drive", drive, "-device", "virtio-blk-pci,drive=d,serial=EM0001"),
    )
    match = re.search(r"^found=(.*)$", told, re.MULTILINE)
    assert match, told[-3000:]
    found = json.loads(match[1])
    assert found["disk"] == ["/dev/vda", DISK_BYTES, "EM0001"]
    assert "is not the disk 'EM0002': its serial number is EM0001" in found["other"]
    assert found["flashed"]["disk"] == "/dev/vda"
    assert found["parts"] == ["vda1", "vda2"]
    assert "is a partition of /dev/vda" in found["partition"]
    assert "/dev/vda2 is mounted at /run/place" in found["mounted"]
    assert "holds this machine's own system (/dev/vda1 is [SWAP])" in found["swapping"]
    # Its boot partition is swap space by now.
    root = Ext4(disk, partitions(disk)[1])
    root.check()
    assert root.entry(f"{PLACE}/edgemask.release") is not None
