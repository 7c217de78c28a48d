"""The partition tables, against sfdisk's; and whatever bytes come, an answer or a clear refusal."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemask.device.partitions import Partition, partitions
from edgemask.errors import UserError

from .cards import MB, PLACES

SFDISK = shutil.which("sfdisk", path=PLACES)
needs_sfdisk = pytest.mark.skipif(SFDISK is None, reason="apt-get install fdisk")
LINES = {
    "dos": "label: dos\nstart=2048,size=4096,type=c\nstart=8192,size=2048,type=83\nstart=12288,type=83\n",
    "gpt": "label: gpt\nstart=2048,size=4096,type=U\nstart=8192,size=2048,type=L\nstart=12288,size=999,type=L\n",
}


def table(path: Path, kind: str) -> Path:
    with path.open("wb") as file:
        file.truncate(16 * MB)
    subprocess.run([str(SFDISK), "-q", str(path)], input=LINES[kind], text=True, check=True)
    return path


@needs_sfdisk
@pytest.mark.parametrize("kind", LINES)
def test_partitions_are_where_sfdisk_says(kind: str, tmp_path: Path) -> None:
    image = table(tmp_path / "image", kind)
    told = subprocess.run([str(SFDISK), "--json", str(image)], capture_output=True, check=True).stdout
    wanted = json.loads(told)["partitiontable"]["partitions"]
    assert [(one.start // 512, one.size // 512) for one in partitions(image)] == [
        (part["start"], part["size"]) for part in wanted
    ]


@needs_sfdisk
@pytest.mark.parametrize("kind", LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_altered_tables_are_read_or_refused(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    image = tmp_path / "image"
    original = image if image.exists() else table(image, kind)
    content = bytearray(original.read_bytes()[: 40 * 512])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    altered = tmp_path / "altered"
    altered.write_bytes(content)
    with altered.open("r+b") as file:
        file.truncate(16 * MB)
    with suppress(UserError):
        assert all(0 < one.start < one.end <= 16 * MB for one in partitions(altered))


@needs_sfdisk
@pytest.mark.parametrize(("offset", "reason"), [(512 + 60, "header"), (1024 + 40, "entries")])
def test_a_byte_flipped_in_gpt_is_seen(offset: int, reason: str, tmp_path: Path) -> None:
    image = table(tmp_path / "image", "gpt")
    with image.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(UserError, match=f"{reason}.* checksum"):
        partitions(image)


@needs_sfdisk
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    image = table(tmp_path / "image", "dos")
    with image.open("r+b") as file:
        file.truncate(9000 * 512)
    with pytest.raises(UserError, match=r"partition 2 ends at byte \d+, behind the file's end"):
        partitions(image)


@pytest.mark.parametrize("content", [b"", b"too short", bytes(1024), b"\x00" * 510 + b"\x55\xaa"])
def test_what_has_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(UserError, match="no sound disk image"):
        partitions(tmp_path / "image")


def test_overlapping_partitions_are_refused(tmp_path: Path) -> None:
    sector = bytearray(512)
    sector[510:] = b"\x55\xaa"
    for index, start in enumerate((8, 10)):
        sector[446 + 16 * index + 4] = 0x83
        sector[446 + 16 * index + 8 : 446 + 16 * index + 16] = start.to_bytes(4, "little") + (4).to_bytes(4, "little")
    (tmp_path / "image").write_bytes(bytes(sector) + bytes(100 * 512))
    with pytest.raises(UserError, match="partitions 1 and 2 overlap"):
        partitions(tmp_path / "image")


def test_a_place_ends_behind_its_last_byte() -> None:
    assert Partition(1, 512, 1024).end == 1536
