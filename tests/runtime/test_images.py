from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgemask_runtime.errors import UserError
from edgemask_runtime.images import list_images, read_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def encoded(pixels: np.ndarray[Any, Any], form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_formats_in_every_colour(form: str) -> None:
    content = encoded(RGB, form, **({"lossless": True} if form == "WEBP" else {}))
    gray = np.asarray(Image.fromarray(RGB).convert("L"))[:, :, None]
    for colour, expected in (("rgb", RGB), ("bgr", RGB[:, :, ::-1]), ("gray", gray)):
        picture = read_image(content, width=7, height=5, colour=colour)  # type: ignore[arg-type]
        assert picture.resized_from is None
        assert picture.pixels.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize("form", ["PNG", "PPM", "JPEG"])
def test_gray_becomes_three_equal_channels(form: str) -> None:
    pixels = read_image(encoded(RGB[:, :, 0], form), width=7, height=5, colour="bgr").pixels
    assert pixels.shape == (5, 7, 3)
    assert (pixels == pixels[:, :, :1]).all()


def test_another_size_is_resized_as_pillow_does_and_said() -> None:
    picture = read_image(encoded(RGB, "PNG"), width=4, height=3, colour="rgb")
    assert picture.resized_from == (5, 7)
    expected = np.asarray(Image.fromarray(RGB).resize((4, 3), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(picture.pixels, expected)
    assert read_image(encoded(RGB, "PNG"), width=4, height=3, colour="gray").pixels.shape == (3, 4, 1)


def test_netpbm_comments_and_ranges() -> None:
    content = b"P5 # made by hand\n3 2\n# and again\n15\n" + bytes([0, 7, 15, 15, 1, 200])
    pixels = read_image(content, width=3, height=2, colour="gray").pixels
    assert pixels.ravel().tolist() == [0, 119, 255, 255, 17, 255]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable image"),
        (b"GIF89a", "not a readable image"),
        (encoded(RGB, "PNG")[:60], "not a readable image"),
        (encoded(RGB, "JPEG")[:300], "not a readable image"),
        (b"P5", "header"),
        (b"P5 3 2 255", "header"),
        (b"P5 -3 2 255\n", "header"),
        (b"P5 9999999 2 255\n", "header"),
        (b"P5 0 2 255\n", "0x2 pixels"),
        (b"P6 99999 99999 255\n", "99999x99999 pixels"),
        (b"P5 3 2 65535\n" + bytes(12), "8-bit"),
        (b"P5 3 2 255\n" + bytes(5), "truncated"),
        (b"P5 " + b"#" * 9999, "header"),
    ],
)
def test_what_is_no_image_is_one_clear_error(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_image(content, width=3, height=2, colour="gray")
    assert "0x7" not in caught.value.message


def test_a_decompression_bomb_is_refused_before_it_unpacks() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match=r"50000x50000 pixels|not a readable image"):
        read_image(bomb, width=3, height=2, colour="gray")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_more_than_eight_bits_are_not_clipped_silently() -> None:
    deep = encoded(np.full((2, 3), 40_000, np.uint16), "PNG")
    with pytest.raises(UserError, match="8 bits"):
        read_image(deep, width=3, height=2, colour="gray")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_broken_image_is_an_image_or_an_error(data: st.DataObject) -> None:
    content = bytearray(encoded(RGB, data.draw(st.sampled_from(["PNG", "JPEG", "PPM", "BMP"]))))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        picture = read_image(bytes(content), width=7, height=5, colour="rgb")
    except UserError:
        return
    assert (picture.pixels.shape, picture.pixels.dtype) == ((5, 7, 3), np.uint8)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert read_image(b"P5 3 2 255\n" + bytes(6), width=3, height=2, colour="gray").resized_from is None
    for content in (b"P5 3 2 255\n" + bytes(6), b"\x89PNG"):
        with pytest.raises(UserError) as caught:
            read_image(content, width=4, height=2, colour="gray")
        assert caught.value.hint == "pip install 'edgemask-runtime[images]'"


def test_images_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.pgm").touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]
    assert [path.name for path in list_images(str(tmp_path), recursive=True)] == ["a.JPG", "b.png", "c.pgm"]
    assert list_images(tmp_path / "b.png") == [tmp_path / "b.png"]


def test_no_images_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        list_images(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot read"):
        read_image(tmp_path / "absent.png", width=1, height=1, colour="rgb")
