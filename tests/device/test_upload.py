"""Files onto a device, over connections that break."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemask.device.ssh import Ssh
from edgemask.device.upload import CHUNK_BYTES, Inbox, Parcel
from edgemask.errors import UserError

from .far import BOARD, with_python
from .sshd import Sshd, needs_sshd

pytestmark = needs_sshd
CONTENT = random.Random(1).randbytes(40 * CHUNK_BYTES + 77)
PARCEL = Parcel.of("my model.release", CONTENT)


@pytest.fixture(autouse=True)
def _python(board: Sshd) -> None:
    with_python(board)


def connect(board: Sshd) -> Ssh:
    return Ssh(BOARD, board.ssh_config)


def test_a_file_arrives_and_is_not_sent_again(board: Sshd) -> None:
    told: list[tuple[int, int]] = []
    with connect(board) as ssh:
        inbox = Inbox(ssh)
        path = Path(inbox.send(PARCEL, lambda _, done, of: told.append((done, of))))
        assert path.read_bytes() == CONTENT
        assert path.parent == board.cache / "incoming"
        assert path.name == f"{PARCEL.sha256[:16]}-my_model.release"
        assert path.parent.stat().st_mode & 0o077 == 0
        assert len(told) > 10
        assert told[-1] == (len(CONTENT), len(CONTENT))
        told.clear()
        assert inbox.send(PARCEL, lambda _, done, of: told.append((done, of))) == str(path)
        assert told == [(len(CONTENT), len(CONTENT))]


def test_a_connection_cut_in_the_middle_goes_on_from_there(board: Sshd) -> None:
    """The second attempt sends only what the first did not bring over, three times in a row."""
    starts = []
    for attempt in range(3):
        with connect(board) as ssh:
            first: list[int] = []

            def cut(_: str, done: int, of: int, first: list[int] = first, limit: int = 8 * (attempt + 1)) -> None:
                first.append(done)
                if done >= limit * CHUNK_BYTES:
                    board.cut()

            with pytest.raises(UserError, match="the connection was lost") as error:
                Inbox(ssh).send(PARCEL, cut)
            assert "run the same command again" in str(error.value.hint)
            starts.append(first[0])
    with connect(board) as ssh:
        told: list[int] = []
        path = Inbox(ssh).send(PARCEL, lambda _, done, of: told.append(done))
    assert Path(path).read_bytes() == CONTENT
    starts.append(told[0])
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > 0


def test_what_was_kept_and_is_wrong_is_sent_anew(board: Sshd) -> None:
    folder = board.cache / "incoming"
    folder.mkdir(parents=True)
    for kept in (b"\0" * 1000, CONTENT + b"more", CONTENT[:-1] + b"!"):
        (folder / PARCEL.name).write_bytes(kept)
        with connect(board) as ssh:
            assert Inbox(ssh).arrived(PARCEL) == 0
            assert Path(Inbox(ssh).send(PARCEL, lambda *_: None)).read_bytes() == CONTENT


def test_a_file_that_somebody_else_sent_meanwhile_is_not_cut_short(board: Sshd) -> None:
    """The other one may be installing from it: it is not touched, and not sent again."""
    folder = board.cache / "incoming"
    folder.mkdir(parents=True)
    path = folder / PARCEL.name
    times: list[int] = []
    with path.open("wb") as file, connect(board) as ssh:
        fcntl.flock(file, fcntl.LOCK_EX)

        def arrive(*_: object) -> None:
            if not times:
                file.write(CONTENT)
                file.flush()
                times.append(path.stat().st_mtime_ns)
                fcntl.flock(file, fcntl.LOCK_UN)

        assert Inbox(ssh).send(PARCEL, arrive) == str(path)
    assert path.read_bytes() == CONTENT
    assert times == [path.stat().st_mtime_ns]


def test_what_else_was_sent_is_removed(board: Sshd) -> None:
    other = Parcel.of("other", b"other")
    with connect(board) as ssh:
        inbox = Inbox(ssh)
        paths = [Path(inbox.send(parcel, lambda *_: None)) for parcel in (PARCEL, other)]
        inbox.keep([other])
        assert [path.exists() for path in paths] == [False, True]
        inbox.keep([])
        assert list(paths[0].parent.iterdir()) == []


def test_an_empty_file(board: Sshd) -> None:
    with connect(board) as ssh:
        assert Path(Inbox(ssh).send(Parcel.of("empty", b""), lambda *_: None)).read_bytes() == b""


@pytest.fixture
def small_disk(board: Sshd) -> Iterator[None]:
    """A file system of a megabyte under the folder that files arrive in."""
    board.cache.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(board.cache)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs to mount a tmpfs, which root may")
    yield
    subprocess.run(["umount", str(board.cache)], check=True)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk(board: Sshd) -> None:
    with connect(board) as ssh, pytest.raises(UserError, match="board: its disk is full") as error:
        Inbox(ssh).send(PARCEL, lambda *_: None)
    assert "df -h" in str(error.value.hint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours(board: Sshd) -> None:
    board.cache.mkdir(parents=True)
    board.cache.chmod(0o500)
    with connect(board) as ssh, pytest.raises(UserError, match="cannot take the release in"):
        Inbox(ssh).send(PARCEL, lambda *_: None)


def test_a_file_in_the_way_of_the_folder(board: Sshd) -> None:
    board.cache.parent.mkdir()
    board.cache.write_text("")
    with (
        connect(board) as ssh,
        pytest.raises(UserError, match=r"cannot take .*(File exists|Not a dir)"),
    ):
        Inbox(ssh).send(PARCEL, lambda *_: None)
