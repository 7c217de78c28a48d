"""Tensors that do not come as JSON or bytes: shared memory, and images."""

from __future__ import annotations

import io
import json
import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from edgemask_runtime.api.pictures import MAX_IMAGE_PIXELS
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.predictor import Predictor

from .serving import serving
from .tiny import CLASSES, SHAPE, MakeBundle, picture

FOLDER = Path("/dev/shm")
INFER = "/v2/models/tiny/infer"
BASE = "/v2/systemsharedmemory"


@pytest.fixture(scope="module")
def client(make_bundle: MakeBundle) -> Iterator[httpx.Client]:
    with serving({"tiny": Predictor.open(Bundle.open(make_bundle(noisy=True)))}) as client:
        yield client


@pytest.fixture(autouse=True)
def _none_registered(client: httpx.Client) -> Iterator[None]:
    yield
    client.post(f"{BASE}/unregister").raise_for_status()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A shared memory object of three frames and 64 bytes for outputs, behind 16 that belong to nobody."""
    path = FOLDER / f"edgemask-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(16) + b"".join(picture(k).tobytes() for k in range(3)) + bytes(64))
    yield path
    path.unlink(missing_ok=True)


FRAMES, OUTPUT = 16, 16 + 3 * 48


def register(client: httpx.Client, path: Path, name: str = "r", offset: int = 0, size: int | None = None) -> Any:
    length = path.stat().st_size - offset if size is None else size
    request = {"key": f"/{path.name}", "offset": offset, "byte_size": length}
    return client.post(f"{BASE}/region/{name}/register", json=request)


def place(offset: int, size: int, region: str = "r") -> dict[str, Any]:
    return {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size}


def ask(client: httpx.Client, source: dict[str, Any], rows: int = 1, target: dict[str, Any] | None = None) -> Any:
    entry = {"name": "frame", "datatype": "UINT8", "shape": [rows, *SHAPE], "parameters": source}
    wanted = {"outputs": [{"name": "probabilities", "parameters": target}]} if target else {}
    return client.post(INFER, json={"inputs": [entry], **wanted})


def test_frames_and_outputs_in_shared_memory(client: httpx.Client, shared: Path) -> None:
    assert register(client, shared).json() == {}
    rows = 3
    answer = ask(client, place(FRAMES, 3 * 48), rows, place(OUTPUT, 64)).raise_for_status().json()
    described = {"name": "probabilities", "datatype": "FP32", "shape": [rows, CLASSES]}
    assert answer["outputs"] == [described]
    values = np.frombuffer(shared.read_bytes(), "<f4", rows * CLASSES, OUTPUT).reshape(rows, CLASSES)
    assert values.argmax(1).tolist() == [0, 1, 2]
    assert shared.read_bytes()[:16] == bytes(16)
    one = ask(client, place(FRAMES + 48, 48)).json()["outputs"][0]
    assert np.argmax(one["data"]) == 1


def test_a_region_may_begin_inside_the_object(client: httpx.Client, shared: Path) -> None:
    register(client, shared, offset=FRAMES, size=48).raise_for_status()
    assert np.argmax(ask(client, place(0, 48)).json()["outputs"][0]["data"]) == 0
    assert client.get(f"{BASE}/region/r/status").json() == [
        {"name": "r", "key": f"/{shared.name}", "offset": FRAMES, "byte_size": 48}
    ]
    assert ask(client, place(1, 48)).status_code == 400
    assert ask(client, place(0, 48), target=place(40, 16)).status_code == 400


def test_regions_come_and_go(client: httpx.Client, shared: Path) -> None:
    for name in ("b", "a"):
        register(client, shared, name).raise_for_status()
    assert "registered already" in register(client, shared, "a").json()["error"]
    assert [region["name"] for region in client.get(f"{BASE}/status").json()] == ["a", "b"]
    client.post(f"{BASE}/region/a/unregister").raise_for_status()
    assert client.get(f"{BASE}/region/a/status").status_code == 404
    assert "'a' is not registered" in ask(client, place(0, 48, "a")).json()["error"]
    client.post(f"{BASE}/unregister").raise_for_status()
    assert client.get(f"{BASE}/status").json() == []


@pytest.mark.parametrize("key", ["", "/", "..", "/..", "/../etc/passwd", "/a/b", "//a", ".hidden", "a\0b", "\xe4", 7])
def test_a_key_is_the_name_of_a_shared_memory_object(client: httpx.Client, key: Any) -> None:
    refused = client.post(f"{BASE}/region/r/register", json={"key": key, "offset": 0, "byte_size": 1})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "sizes", [(-1, 4), (0, 0), (0, -4), (0, 225), (224, 1), (1 << 62, 1 << 62), (0.5, 1), (True, 1)]
)
def test_a_region_lies_inside_its_object(client: httpx.Client, shared: Path, sizes: tuple[Any, Any]) -> None:
    request = {"key": shared.name, "offset": sizes[0], "byte_size": sizes[1]}
    assert client.post(f"{BASE}/region/r/register", json=request).status_code == 400


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "hard link", "another user's", "socket", "missing"])
def test_what_is_no_object_of_ones_own_is_refused(
    client: httpx.Client, shared: Path, kind: str, tmp_path: Path
) -> None:
    other = FOLDER / f"{shared.name}-other"
    make = {
        "symlink": lambda: other.symlink_to(shared),
        "fifo": lambda: os.mkfifo(other),
        "folder": other.mkdir,
        "hard link": lambda: other.hardlink_to(shared),
        "another user's": lambda: give_away(other),
        "socket": lambda: os.mknod(other, 0o140600),
        "missing": lambda: None,
    }
    make[kind]()
    try:
        refused = register(client, other, size=1)
    finally:
        if kind != "missing":
            (other.rmdir if kind == "folder" else other.unlink)()
    assert refused.status_code == (404 if kind == "missing" else 400)


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_bytes(b"x")
    os.chown(path, 65534, 65534)


def test_an_object_that_is_shortened_ends_nothing(client: httpx.Client, shared: Path) -> None:
    register(client, shared).raise_for_status()
    os.truncate(shared, 20)
    assert "shorter" in ask(client, place(FRAMES, 48)).json()["error"]
    shared.write_bytes(bytes(FRAMES + 48))
    assert "shorter" in ask(client, place(FRAMES, 48), target=place(OUTPUT, 16)).json()["error"]
    assert shared.stat().st_size == FRAMES + 48
    assert client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    "parameters",
    [
        {"shared_memory_region": 7, "shared_memory_byte_size": 48},
        {"shared_memory_region": "r"},
        {"shared_memory_region": "r", "shared_memory_byte_size": "48"},
        {"shared_memory_region": "r", "shared_memory_byte_size": 47},
        {"shared_memory_region": "r", "shared_memory_byte_size": 48, "shared_memory_offset": -1},
        {"shared_memory_region": "r", "shared_memory_byte_size": 48, "binary_data_size": 0},
    ],
)
def test_wrong_places_are_refused(client: httpx.Client, shared: Path, parameters: dict[str, Any]) -> None:
    register(client, shared).raise_for_status()
    assert ask(client, parameters).status_code == 400


def test_cuda_memory_is_answered_as_clients_expect(client: httpx.Client) -> None:
    assert client.get("/v2/cudasharedmemory/status").json() == []
    assert client.post("/v2/cudasharedmemory/unregister").json() == {}
    assert client.post("/v2/cudasharedmemory/region/r/register", json={}).status_code == 400


def encoded(kind: str, pixels: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def post_image(client: httpx.Client, content: bytes, kind: str = "png") -> httpx.Response:
    return client.post(INFER, content=content, headers={"Content-Type": f"image/{kind}"})


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True})]
)
def test_images_are_decoded(client: httpx.Client, kind: str, options: dict[str, Any]) -> None:
    answer = post_image(client, encoded(kind, picture(3)[:, :, 0], **options), kind.lower()).raise_for_status().json()
    assert np.argmax(answer["outputs"][0]["data"]) == 3
    assert answer["outputs"][0]["shape"] == [1, CLASSES]


def test_a_large_image_is_brought_to_the_frames_size_and_colour(client: httpx.Client) -> None:
    large = np.repeat(np.repeat(picture(1), 20, 0), 20, 1).repeat(3, 2)
    answer = post_image(client, encoded("JPEG", large), "jpeg").raise_for_status().json()
    assert np.argmax(answer["outputs"][0]["data"]) == 1


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable image"),
        (b"\x89PNG\r\n\x1a\n", "not a readable image"),
        (b"GIF89a", "not a readable image"),
        (encoded("PNG", picture(0)[:, :, 0])[:-30], "not a readable image"),
        (bomb(4000, 4001), str(MAX_IMAGE_PIXELS)),
        (bomb(2**31 - 1, 2**31 - 1), ""),
        (bomb(0, 5), ""),
        (b"P5 99999 99999 255\n", str(MAX_IMAGE_PIXELS)),
    ],
)
def test_what_is_no_image_or_too_large_a_one_is_refused(client: httpx.Client, content: bytes, reason: str) -> None:
    refused = post_image(client, content)
    assert refused.status_code == 400
    assert reason in refused.json()["error"]


def test_too_many_bytes_are_not_read(client: httpx.Client) -> None:
    assert post_image(client, bytes((16 << 20) + 1)).status_code == 413


def test_the_document_names_what_is_there(client: httpx.Client) -> None:
    document = client.get("/openapi.json").raise_for_status().json()
    assert document["openapi"].startswith("3.")
    schema = document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]["schema"]
    frames = [each["properties"] for each in schema["properties"]["inputs"]["items"]["anyOf"]]
    assert [frame["shape"]["const"] for frame in frames] == [[rows, *SHAPE] for rows in range(1, 65)]
    assert "entropy" not in json.dumps(document)
