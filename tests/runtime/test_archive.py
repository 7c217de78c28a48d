from __future__ import annotations

import errno
import io
import itertools
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask_runtime.archive import Kind, file_records, open_archive, pack
from edgemask_runtime.errors import UserError
from edgemask_runtime.files import replacing, write_atomic

KIND = Kind("box", r"(in/)?[a-z]{1,9}", "make one", "make it again")
NAMES = st.from_regex(r"(in/)?[a-z]{1,9}", fullmatch=True)
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=99), max_size=6)
HERE = Path("x.box")


def packed(entries: dict[str, bytes], **options: int) -> bytes:
    to = io.BytesIO()
    pack(entries, to, **options)
    return to.getvalue()


def content_of(data: bytes) -> dict[str, bytes]:
    with open_archive(HERE, KIND, io.BytesIO(data)) as archive:
        archive.check_canonical()
        return {name: archive.open(name).read() for name in archive.names}


def by_zipfile(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w") as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return to.getvalue()


def odd(name: str, **changes: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry


@settings(deadline=None)
@given(CONTENTS)
def test_what_was_packed_comes_back(entries: dict[str, bytes]) -> None:
    if {name for name in entries if f"{name}/" in "".join(entries)}:
        return
    data = packed(entries)
    assert content_of(data) == entries
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(entries)


def test_order_and_kind_of_what_is_packed_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"second")
    given_bytes = packed({"b": b"second", "a": b"first"})
    to = io.BytesIO()
    pack({"a": b"first", "b": tmp_path / "b"}, to)
    assert to.getvalue() == given_bytes
    assert file_records({"b": tmp_path / "b"}) == file_records({"b": b"second"})


@settings(deadline=None)
@given(st.data())
def test_no_byte_of_an_archive_is_free(data: st.DataObject) -> None:
    whole = bytearray(packed({"a": b"first", "in/b": b"second", "c": b""}))
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UserError, match=r"x\.box: not a sound box"):
        content_of(bytes(whole))


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_or_read(data: bytes, ended: bool) -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, min(len(data), 60), 0, 0)
    with pytest.raises(UserError):
        content_of(data + end if ended else data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (by_zipfile(("../evil", b"")), "unsafe name"),
        (by_zipfile(("/etc/passwd", b"")), "unsafe name"),
        (by_zipfile(("in/../../a", b"")), "unsafe name"),
        (by_zipfile(("in\\a", b"")), "unsafe name"),
        (by_zipfile(("in/", b"")), "unsafe name"),
        (by_zipfile(("a_b", b"")).replace(b"a_b", b"a\0b"), "unsafe name"),
        (by_zipfile(("ä", b"")), "unsafe name"),
        (by_zipfile((odd("link", create_system=3, external_attr=0o120777 << 16), b"/etc/passwd")), "no regular file"),
        (by_zipfile((odd("pipe", create_system=3, external_attr=0o010666 << 16), b"")), "no regular file"),
        (by_zipfile((odd("bomb", compress_type=zipfile.ZIP_DEFLATED), bytes(1 << 24))), "not stored plainly"),
        (by_zipfile(("a", b"x")) + b"PK", "does not end as one does"),
        (b"<html>not found</html>", "does not end as one does"),
        (b"", "does not end as one does"),
        (b"junk" + by_zipfile(("a", b"x")), "unusual header"),
        (by_zipfile(("b", b"x"), ("a", b"x")), "unusual"),
        (by_zipfile((odd("a", date_time=(1999, 1, 1, 0, 0, 0)), b"x")), "unusual header"),
        (by_zipfile((odd("a", comment=b"hidden"), b"x")), "unusual"),
        (by_zipfile((odd("a", extra=b"\x99\x99\x04\x00gift"), b"x")), "unusual header"),
        (packed({"a": b""}, source_date_epoch=1_700_000_000), "unusual header"),
        (packed({str(n).translate({48 + d: 97 + d for d in range(10)}): b"" for n in range(5000)}), "more than 4096"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_plain_archive_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        content_of(data)


def test_a_directory_that_lies_about_its_length_is_refused() -> None:
    """zipfile reads all the records that the directory's bytes hold, whatever their number is said to be."""
    many = {str(n).translate({48 + d: 97 + d for d in range(10)}): b"" for n in range(5000)}
    commented = [(odd(name, comment=b"x" * 60_000), b"") for name in "abcdefghijklmnopqrst"]
    for data in (packed(many), by_zipfile(*commented)):
        end = bytearray(data[-22:])
        struct.pack_into("<2H", end, 8, 7, 7)
        with pytest.raises(UserError, match="more than 4096"):
            content_of(data[:-22] + bytes(end))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_is_one_entry() -> None:
    with pytest.raises(UserError, match="two entries have the same name"):
        content_of(by_zipfile(("a", b"x"), ("a", b"y")))
    with pytest.raises(UserError, match="in is a file and a folder"):
        content_of(by_zipfile(("in", b"x"), ("in/a", b"y")))


def test_entries_that_share_their_bytes_are_refused() -> None:
    """Fifield's bomb without compression: many names for the same large content."""
    data = bytearray(packed({"a": bytes(10_000), "b": b""}))
    at = data.rindex(b"PK\1\2")
    record = struct.unpack_from("<4s6H3L5H2L", data, data.index(b"PK\1\2"))
    struct.pack_into("<4s6H3L5H2L", data, at, *record)
    with pytest.raises(UserError, match="overlap"):
        content_of(bytes(data))


def test_a_directory_elsewhere_is_refused() -> None:
    """ZIP64's locator would send zipfile to another directory than the one that was looked at."""
    data = packed({"a": b"x"})
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    with pytest.raises(UserError, match="does not end as one does"):
        content_of(data[:-22] + locator + data[-22:])


def test_content_that_changed_since_is_refused() -> None:
    records = file_records({"a": b"first"})
    with open_archive(HERE, KIND, io.BytesIO(packed({"a": b"other"}))) as archive:
        with pytest.raises(UserError, match="digest"):
            list(archive.chunks("a", records["a"]))
        with pytest.raises(UserError, match="b is missing"):
            archive.check_files(records | file_records({"b": b""}), set())
        with pytest.raises(UserError, match="a is not in the manifest"):
            archive.check_files({}, set())


def test_a_missing_archive_says_how_to_come_by_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such box") as caught, open_archive(tmp_path / "no.box", KIND):
        pass
    assert caught.value.hint == "make one"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")
    for fault in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises((KeyboardInterrupt, UserError)) as caught:
            half_written(path, fault)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert str(caught.value) == f"{path}: cannot write: No space left on device"
    assert getattr(caught.value, "hint", None) == "make room there, and run it again"


def half_written(path: Path, fault: BaseException) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise fault
