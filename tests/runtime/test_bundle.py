from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemask_runtime.bundle import Bundle, Manifest, file_records, payload_digest, write_bundle
from edgemask_runtime.errors import UserError

from .tiny import MakeBundle


@pytest.fixture(scope="module")
def path(make_bundle: MakeBundle) -> Path:
    return make_bundle(noisy=True)


@pytest.fixture(scope="module")
def manifest(path: Path) -> Manifest:
    return Bundle.open(path).manifest


def rewritten(path: Path, to: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    """Copy the archive, with `entries` in place of those of the same name."""
    replaced = {entry if isinstance(entry, str) else entry.filename for entry, _ in entries}
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            if name not in replaced:
                new.writestr(name, old.read(name))
        for entry, data in entries:
            new.writestr(entry, data)
    return to


def test_a_manifest_survives_its_text(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


CAN = {"message": "classification", "id": 0x640, "extended": False, "data_id": 0x640, "period_ms": 100}
COLOURS = "gray, rgb, bgr, rgba, bgra, nv12, i420, yuyv"


def test_every_fault_is_reported_at_once(manifest: Manifest) -> None:
    data = json.loads(manifest.to_json())
    data["frame"]["colour"] = "grey"
    data["frame"]["height"] = 0
    data["max_age_ms"] = "soon"
    data["labls"] = data.pop("labels")
    data["chain"][0]["role"] = "masc"
    data["files"]["model.onnx"]["sha256"] = "00"
    with pytest.raises(UserError) as caught:
        Manifest.from_json(json.dumps(data), "a/manifest.json")
    lines = caught.value.message.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("a/manifest.json: $.") for line in lines)
    assert f"a/manifest.json: $.frame.colour: value \"grey\"; allowed: {COLOURS}; did you mean 'gray'?" in lines
    assert any("$.labls: unknown key" in line and "did you mean 'labels'?" in line for line in lines)
    assert any("$.frame.height: value 0; allowed: 1 to 16384" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("engine", "litert", "$.engine"),
        ("thresholds", {"suspicion": 1.2}, "$.thresholds.suspicion"),
        ("outputs", [], "$.outputs"),
        ("files", {}, "$.model.file"),
        ("schema", True, "$.schema"),
        ("schema", 2, "$.schema"),
        ("can", [CAN | {"message": "objects"}], "$.can[0].message"),
        ("can", [CAN | {"id": 0x800}], "$.can[0].id"),
        ("can", [CAN, CAN | {"id": 0x641}], "$.can[1].data_id"),
        ("name", "../x", "$.name"),
        ("entropy", {"name": "entropy", "bytes": 4, "generator": "shake12"}, "did you mean 'shake128'?"),
    ],
)
def test_what_does_not_go_together_is_a_fault(manifest: Manifest, key: str, value: Any, fault: str) -> None:
    data = json.loads(manifest.to_json()) | {key: value}
    with pytest.raises(UserError) as caught:
        Manifest.from_json(json.dumps(data))
    assert fault in caught.value.message


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"colour": "nv12", "width": 7, "matrix": "bt601", "range": "full"}, "$.frame.width: value 7"),
        ({"colour": "nv12"}, "$.frame: stride, matrix and range are not stated"),
        ({"matrix": "bt709"}, "$.frame.matrix: value 'bt709'"),
        ({"stride": 5}, "$.frame.stride: value 5; allowed: 6 or more for gray of width 6"),
        ({"stride": 6}, "$.frame: stride, matrix and range are not stated"),
        ({"range": "wide"}, "allowed: limited, full"),
    ],
)
def test_a_frame_that_no_camera_delivers_is_a_fault(manifest: Manifest, changes: dict[str, Any], fault: str) -> None:
    data = json.loads(manifest.to_json())
    data["frame"] |= changes
    with pytest.raises(UserError) as caught:
        Manifest.from_json(json.dumps(data))
    assert fault in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 99999, '{"a": NaN}', "1e999", "null"])
def test_text_that_is_no_manifest(text: str) -> None:
    with pytest.raises(UserError):
        Manifest.from_json(text)


def test_a_bundle_gives_back_what_was_put_in(path: Path, manifest: Manifest) -> None:
    bundle = Bundle.open(path)
    assert bundle.evidence == {"parity": "ok"}
    assert file_records({"model.onnx": bundle.read("model.onnx")}) == manifest.files


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(path)
    files = {"model.onnx": bundle.read("model.onnx")}
    write_bundle(tmp_path / "again.edgemask", bundle.manifest, files, {"parity": "ok"})
    assert (tmp_path / "again.edgemask").read_bytes() == path.read_bytes()
    write_bundle(tmp_path / "dated.edgemask", bundle.manifest, files, {}, source_date_epoch=1_700_000_000)
    assert payload_digest(Bundle.open(tmp_path / "dated.edgemask").manifest) == payload_digest(bundle.manifest)
    assert zipfile.ZipFile(tmp_path / "dated.edgemask").infolist()[0].date_time == (2023, 11, 14, 22, 13, 20)


def test_records_that_are_not_the_files_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not those of the files"):
        write_bundle(tmp_path / "x.edgemask", manifest, {"model.onnx": b"other"}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_digest_covers_the_manifest_but_not_the_evidence(manifest: Manifest) -> None:
    assert payload_digest(manifest) != payload_digest(dataclasses.replace(manifest, max_age_ms=501))


def symlink() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry


def compressed() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("evidence.json")
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


@pytest.mark.parametrize(
    ("entry", "data", "reason"),
    [
        ("../evil", b"", "unsafe name"),
        ("/etc/passwd", b"", "unsafe name"),
        ("a/b", b"", "unsafe name"),
        ("extra", b"", "extra is not in the manifest"),
        (symlink(), b"/etc/passwd", "is no regular file"),
        (compressed(), b"{}" * 999, "not stored plainly"),
        ("model.onnx", b"other", "does not have the"),
        ("evidence.json", b"[]", "evidence.json is no object"),
        ("evidence.json", b"\xff\xfe", "evidence.json is not UTF-8 text"),
        ("manifest.json", b"{}", "missing"),
    ],
)
def test_a_tampered_archive_is_refused(
    path: Path, tmp_path: Path, entry: zipfile.ZipInfo | str, data: bytes, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        Bundle.open(rewritten(path, tmp_path / "bad.edgemask", [(entry, data)]))


def test_same_size_other_content_is_refused(path: Path, tmp_path: Path) -> None:
    model = bytearray(Bundle.open(path).read("model.onnx"))
    model[-1] ^= 1
    with pytest.raises(UserError, match="digest"):
        Bundle.open(rewritten(path, tmp_path / "bad.edgemask", [("model.onnx", bytes(model))]))
    opened = Bundle.open(tmp_path / "bad.edgemask", whole=False)
    with pytest.raises(UserError, match="digest"):
        opened.read("model.onnx")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(path: Path, tmp_path: Path) -> None:
    model = Bundle.open(path).read("model.onnx")
    with pytest.raises(UserError, match="same name"):
        Bundle.open(rewritten(path, tmp_path / "bad.edgemask", [("model.onnx", model), ("model.onnx", model)]))


@pytest.mark.parametrize("name", ["manifest.json", "evidence.json", "model.onnx"])
def test_a_missing_file_is_named(path: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bad.edgemask", "w") as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
    with pytest.raises(UserError, match=f"{name} is missing"):
        Bundle.open(tmp_path / "bad.edgemask")


def test_what_is_no_bundle_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.edgemask").write_text("hello")
    for path in (tmp_path / "absent.edgemask", tmp_path / "text.edgemask", tmp_path):
        with pytest.raises(UserError) as caught:
            Bundle.open(path)
        assert caught.value.hint


def test_a_file_that_changes_after_opening_is_noticed(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edgemask"
    copy.write_bytes(path.read_bytes())
    bundle = Bundle.open(copy)
    rewritten(path, copy, [("model.onnx", b"other")])
    with pytest.raises(UserError, match="bytes that are stated"):
        bundle.read("model.onnx")


relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(data=st.data())
def test_a_mutated_bundle_is_refused_or_the_same(data: st.DataObject, path: Path, tmp_path: Path) -> None:
    sound = Bundle.open(path)
    broken = tmp_path / "broken.edgemask"
    broken.write_bytes(mutated(data, path.read_bytes()))
    try:
        bundle = Bundle.open(broken)
        model = bundle.read("model.onnx")
    except UserError:
        return
    assert (bundle.manifest, bundle.evidence, model) == (sound.manifest, sound.evidence, sound.read("model.onnx"))


@relaxed
@given(data=st.data())
def test_a_mutated_manifest_is_refused_or_canonical(data: st.DataObject, manifest: Manifest) -> None:
    text = mutated(data, manifest.to_json().encode()).decode(errors="replace")
    try:
        read = Manifest.from_json(text)
    except UserError:
        return
    assert Manifest.from_json(read.to_json()) == read


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@relaxed
@given(value=json_values, data=st.data())
def test_any_value_in_any_place_is_refused_or_read(value: Any, data: st.DataObject, manifest: Manifest) -> None:
    document = json.loads(manifest.to_json())
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    with contextlib.suppress(UserError):
        Manifest.from_json(json.dumps(document))


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """Flip, cut, insert or repeat a few bytes."""
    buffer = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(buffer)))
        piece = data.draw(st.binary(min_size=0, max_size=8))
        buffer[at : at + data.draw(st.sampled_from([0, 1, 2, len(piece), 64]))] = piece
    return bytes(buffer)


def test_an_archive_of_overlapping_entries_is_refused(path: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.onnx", b"x" * 2000)
        for name in ("manifest.json", "evidence.json"):
            entry = zipfile.ZipInfo(name)
            archive.writestr(entry, b"x" * 2000)
            archive.infolist()[-1].header_offset = 0
    (tmp_path / "bad.edgemask").write_bytes(content.getvalue())
    with pytest.raises(UserError):
        Bundle.open(tmp_path / "bad.edgemask")
