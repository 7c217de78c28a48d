"""Writing to a real block device, a loop device: where this machine has any and the tests are root's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemask.device.block_devices import Disk
from edgemask.device.disk import BLOCK, Consent, choose, write_disk
from edgemask.errors import UserError

from .cards import loop_device

SIZE = 3 * BLOCK
NOBODY_UID = 65534
IMAGE_BYTES = 2 * BLOCK + 5 * 512 + 100


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A loop device and the file behind it, which is full of old data."""
    backing = tmp_path / "backing"
    backing.write_bytes(os.urandom(SIZE))
    with loop_device(backing, SIZE) as device:
        yield device, backing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "sd.img"
    path.write_bytes(os.urandom(IMAGE_BYTES))
    return path


def quiet(step: str, done: int, of: int) -> None:
    """Nobody watches."""


def never(question: str) -> str:
    raise AssertionError(question)


def typed(device: Path) -> Consent:
    return Consent(lambda question: f"{device.name}\n")


def test_an_image_is_written_and_read_back(loop: tuple[Path, Path], image: Path) -> None:
    device, backing = loop
    behind = backing.read_bytes()[IMAGE_BYTES + 412 :]
    told: list[tuple[str, int, int]] = []
    write_disk(image, choose(device, IMAGE_BYTES, typed(device)), lambda *step: told.append(step))
    written = backing.read_bytes()
    assert hashlib.sha256(written[:IMAGE_BYTES]).digest() == hashlib.sha256(image.read_bytes()).digest()
    assert written[IMAGE_BYTES : IMAGE_BYTES + 412] == bytes(412)
    assert written[IMAGE_BYTES + 412 :] == behind
    assert ("write", IMAGE_BYTES, IMAGE_BYTES) in told
    assert told[-1] == ("verify", IMAGE_BYTES, IMAGE_BYTES)


def test_a_medium_that_returns_something_else_is_found(loop: tuple[Path, Path], image: Path) -> None:
    device, backing = loop

    def breaks(step: str, done: int, of: int) -> None:
        if (step, done) == ("verify", BLOCK):
            with backing.open("r+b") as file:
                file.seek(BLOCK + 7)
                byte = file.read(1)[0]
                file.seek(BLOCK + 7)
                file.write(bytes([byte ^ 0x10]))
                os.fsync(file.fileno())

    with pytest.raises(UserError, match=f"does not return what was written, between bytes {BLOCK} and {2 * BLOCK}"):
        write_disk(image, choose(device, IMAGE_BYTES, typed(device)), breaks)


def test_who_is_not_root_is_told_how_before_anything_is_asked(loop: tuple[Path, Path]) -> None:
    os.seteuid(NOBODY_UID)
    try:
        with pytest.raises(UserError, match="only root may write to it") as caught:
            choose(loop[0], IMAGE_BYTES, Consent(never))
    finally:
        os.seteuid(0)
    assert str(caught.value.hint).startswith('sudo "$(command -v edgemask)" flash ... --enrol ')


def test_the_documented_command_finds_program_and_key(tmp_path: Path) -> None:
    """What the page says, run by a shell whose sudo has no PATH and no HOME of the user's."""
    page = (Path(__file__).parents[2] / "docs/images.md").read_text()
    command = page.partition("\n    sudo ")[2].partition("\n\n")[0]
    home, programs = tmp_path / "home", tmp_path / "programs"
    for name, script in {
        "edgemask": 'printf "%s\\n" "$0" "$@"',
        "sudo": 'exec env -i PATH=/usr/bin:/bin HOME=/root "$@"',
    }.items():
        (programs / name).parent.mkdir(exist_ok=True)
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(["sh", "-c", f"sudo {command}"], env=environment, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert told[:2] == [str(programs / "edgemask"), "flash"]
    assert told[told.index("--enrol") + 1] == str(home / ".config/edgemask/keys/NAME.pub")


def test_writing_cut_off_leaves_no_beginning(loop: tuple[Path, Path], image: Path) -> None:
    device, backing = loop

    def cut(step: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_disk(image, choose(device, IMAGE_BYTES, typed(device)), cut)
    assert backing.read_bytes()[:BLOCK] == bytes(BLOCK)


def test_one_that_is_in_use_is_refused(loop: tuple[Path, Path], image: Path) -> None:
    device, backing = loop
    disk = choose(device, IMAGE_BYTES, typed(device))
    before = hashlib.sha256(backing.read_bytes()).digest()
    held = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(UserError, match="is in use"):
            write_disk(image, disk, quiet)
    finally:
        os.close(held)
    assert hashlib.sha256(backing.read_bytes()).digest() == before


def test_a_mounted_one_is_refused(tmp_path: Path, loop: tuple[Path, Path]) -> None:
    device, _ = loop
    mke2fs, place = shutil.which("mke2fs") or "/sbin/mke2fs", tmp_path / "mnt"
    subprocess.run([mke2fs, "-q", "-F", str(device)], check=True)
    place.mkdir()
    if subprocess.run(["mount", str(device), str(place)], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount")
    try:
        with pytest.raises(UserError, match=f"{device} is mounted at {place}"):
            choose(device, IMAGE_BYTES, typed(device))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_another_disk_than_the_one_chosen_is_not_written(loop: tuple[Path, Path], image: Path) -> None:
    device, backing = loop
    before = hashlib.sha256(backing.read_bytes()).digest()
    other = Disk(str(device), device.name, SIZE * 2, "", "", "", ())
    with pytest.raises(UserError, match="is another disk than before"):
        write_disk(image, other, quiet)
    assert hashlib.sha256(backing.read_bytes()).digest() == before


@pytest.mark.parametrize("answer", ["", "yes", "sdb1", "loop"])
def test_only_its_name_will_do(answer: str, loop: tuple[Path, Path]) -> None:
    device, _ = loop
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return answer

    with pytest.raises(UserError, match="was not typed"):
        choose(device, IMAGE_BYTES, Consent(ask))
    assert str(device) in asked[0]
    assert f"Type {device.name} to go on" in asked[0]


def test_a_serial_number_that_is_not_its_own_is_refused(loop: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="is not the disk 'X1': it tells no serial number"):
        choose(loop[0], IMAGE_BYTES, Consent(never, serial="X1"))


def test_one_that_is_too_small_is_refused(loop: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="is too small"):
        choose(loop[0], SIZE + 1, typed(loop[0]))
