from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgemask_runtime
from edgemask_runtime.archive import file_records
from edgemask_runtime.bundle import Bundle, write_bundle
from edgemask_runtime.engines import ENGINES
from edgemask_runtime.errors import UserError
from edgemask_runtime.moments import seconds
from edgemask_runtime.release import Release, ReleaseManifest, payload_digest, write_release

from .releases import MODEL, UNSIGNED, WHEEL, files_around, manifest_around, write_tiny_release
from .tiny import MakeBundle


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle()


@pytest.fixture(scope="module")
def path(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_release(tmp_path_factory.mktemp("release") / "tiny-host.release", bundle)


def test_a_release_gives_back_what_was_put_in(path: Path, bundle: Path) -> None:
    release, files = Release.open(path), files_around(bundle)
    assert {name: release.read(name) for name in release.manifest.files} == files
    assert release.manifest == manifest_around(bundle, files)
    assert release.signatures == UNSIGNED
    assert ReleaseManifest.from_json(release.signed.decode()) == release.manifest
    assert release.signed == release.manifest.to_json().encode()


def test_the_same_content_gives_the_same_bytes(path: Path, bundle: Path, tmp_path: Path) -> None:
    files = dict(reversed(files_around(bundle).items()))
    for name, content in files.items():
        (tmp_path / Path(name).name).write_bytes(content)
    on_disk = {name: tmp_path / Path(name).name for name in files}
    write_release(tmp_path / "again", manifest_around(bundle, files), on_disk, UNSIGNED)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_payload_is_all_but_the_evidence(path: Path, bundle: Path, tmp_path: Path) -> None:
    digest = payload_digest(Release.open(path).manifest)
    inner = Bundle.open(bundle)
    measured = tmp_path / "measured.edgemask"
    write_bundle(measured, inner.manifest, {"model.onnx": inner.read("model.onnx")}, {"parity": "elsewhere"})
    files = files_around(measured) | {"evidence.json": b'{"machine": "other"}\n'}
    elsewhere = manifest_around(measured, files)
    assert elsewhere.files != Release.open(path).manifest.files
    assert payload_digest(elsewhere) == digest
    for name in (WHEEL, "settings.toml", "sbom.cdx.json", "units/edgemaskd.service"):
        assert payload_digest(manifest_around(bundle, files_around(bundle) | {name: b"other"})) != digest
    assert payload_digest(manifest_around(bundle, files_around(bundle), serial=4)) != digest


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_is_free(path: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(path.read_bytes())
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index] ^= data.draw(st.integers(1, 255))
    other = tmp_path / "flipped.release"
    other.write_bytes(whole)
    with pytest.raises(UserError):
        Release.open(other)


def test_a_byte_in_every_region_is_noticed(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for index in range(0, len(whole), 97):
        other = tmp_path / "flipped.release"
        other.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(UserError):
            Release.open(other)


@pytest.mark.parametrize("share", [0, 0.3, 0.99, 0.9999])
def test_a_part_of_a_release_is_none(path: Path, tmp_path: Path, share: float) -> None:
    whole = path.read_bytes()
    (tmp_path / "part.release").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="the file is incomplete"):
        Release.open(tmp_path / "part.release")


def repacked(path: Path, to: Path, changes: dict[str, bytes | None]) -> Path:
    """The archive again, sound as an archive, with other contents: None takes an entry away."""
    from edgemask_runtime.archive import pack

    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    changed = {name: content for name, content in {**entries, **changes}.items() if content is not None}
    with to.open("w+b") as file:
        pack(changed, file)
    return to


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({WHEEL: b"not a wheel! " * 99}, "does not have the digest"),
        ({WHEEL: b"longer"}, "bytes that are stated"),
        ({"settings.toml": None}, "settings.toml is missing"),
        ({"units/extra.service": b""}, "units/extra.service is not in the manifest"),
        ({"settings.toml.bak": b""}, "settings.toml.bak is not in the manifest"),
        ({"release.json": None}, "release.json is missing"),
        ({"signature.json": None}, "signature.json is missing"),
        ({"release.json": b"{}"}, r"release.json: \$.name: missing"),
        ({"signature.json": b'{"schema": 1, "signatures": [{}]}'}, r"\$.signatures\[0\].key: missing"),
        ({"signature.json": b"[" * 9999}, "not valid JSON"),
    ],
)
def test_a_tampered_release_is_refused(
    path: Path, tmp_path: Path, changes: dict[str, bytes | None], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        Release.open(repacked(path, tmp_path / "bad.release", changes))


def test_a_manifest_is_written_in_one_way(path: Path, tmp_path: Path) -> None:
    text = json.dumps(json.loads(Release.open(path).signed)).encode()
    with pytest.raises(UserError, match="in another way than releases do"):
        Release.open(repacked(path, tmp_path / "bad.release", {"release.json": text}))


def test_a_bundle_with_another_payload_than_stated_is_refused(path: Path, bundle: Path, tmp_path: Path) -> None:
    inner = Bundle.open(bundle)
    other = tmp_path / "other.edgemask"
    content = {"model.onnx": inner.read("model.onnx")}
    write_bundle(other, dataclasses.replace(inner.manifest, max_age_ms=501), content, {})
    files = files_around(other)
    manifest = dataclasses.replace(manifest_around(bundle, files), models=Release.open(path).manifest.models)
    write_release(tmp_path / "bad.release", manifest, files, UNSIGNED)
    with pytest.raises(UserError, match=f"{MODEL} does not have the payload"):
        Release.open(tmp_path / "bad.release")


def test_a_release_that_changes_after_it_was_opened_is_noticed(path: Path, bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "x.release"
    other.write_bytes(path.read_bytes())
    release = Release.open(other)
    repacked(path, other, {WHEEL: b"not a wheel! " * 99})
    with pytest.raises(UserError, match="digest"):
        release.read(WHEEL)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("schema", 2, "$.schema"),
        ("serial", 0, "$.serial"),
        ("serial", True, "$.serial"),
        ("min_serial", 4, "$.min_serial: value 4; allowed: 1 to serial, 3"),
        ("version", "../1", "$.version"),
        ("version", "", "$.version"),
        ("name", "a/b", "$.name"),
        ("expires", "2027-02-30T00:00:00Z", "$.expires"),
        ("expires", "2027-02-03", "$.expires"),
        ("date", "1969-12-31T23:59:59Z", "$.date"),
        ("arch", "arm64", "$.arch"),
        ("boards", ["Raspberry Pi"], "$.boards"),
        ("glibc", "2.28.1", "$.glibc"),
        ("environments", {}, "$.environments: nothing in it"),
        ("environments", {"2.7": {"wheels": [WHEEL], "system": []}}, "$.environments.2.7"),
        ("environments", {"3.11": {"wheels": ["../x.whl"], "system": []}}, "$.environments.3.11.wheels"),
        ("environments", {"3.11": {"wheels": [], "system": []}}, f"$.files.{WHEEL}: nothing names it"),
        ("engine", "litrt", "did you mean 'litert'?"),
        ("models", {}, "$.models: nothing in it"),
        ("models", {"tiny": {"file": "models/../x", "payload": "0" * 64}}, "$.models.tiny.file"),
        ("models", {"../x": {"file": MODEL, "payload": "0" * 64}}, "$.models.../x: not such a name"),
        ("models", {name: {"file": MODEL, "payload": "0" * 64} for name in "ab"}, "two models have the same file"),
        ("units", ["units/other.service"], "$.files.units/other.service: missing"),
        ("keys", {"add": ["AAAA"], "revoke": []}, "$.keys.add"),
        ("keys", {"add": [], "revoke": ["ABC"]}, "$.keys.revoke"),
        ("settings", "/etc/passwd", "$.settings"),
        ("sign", "x", "$.sign: unknown key"),
    ],
)
def test_what_does_not_go_together_is_a_fault(path: Path, key: str, value: Any, fault: str) -> None:
    data = json.loads(Release.open(path).signed) | {key: value}
    with pytest.raises(UserError) as caught:
        ReleaseManifest.from_json(json.dumps(data))
    assert fault in caught.value.message


def test_engines_are_those_of_the_runtime(path: Path) -> None:
    data = json.loads(Release.open(path).signed)
    for engine in ENGINES:
        assert ReleaseManifest.from_json(json.dumps(data | {"engine": engine})).engine == engine


def test_moments_are_utc() -> None:
    assert seconds("2027-01-31T00:00:00Z") == 1801353600
    with pytest.raises(ValueError, match="2027-1-31"):
        seconds("2027-1-31T00:00:00Z")


def test_records_that_are_not_the_files_are_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = manifest_around(bundle, files_around(bundle))
    with pytest.raises(ValueError, match="not those of the files"):
        write_release(tmp_path / "x.release", manifest, files_around(bundle) | {WHEEL: b"other"}, UNSIGNED)
    assert file_records(files_around(bundle)) == manifest.files
    assert list(tmp_path.iterdir()) == []


def test_a_bare_python_reads_a_release_from_the_runtimes_wheel(path: Path, tmp_path: Path) -> None:
    home, wheel = Path(edgemask_runtime.__file__).parent, tmp_path / "edgemask_runtime-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in home.rglob("*.py"):
            archive.write(file, f"edgemask_runtime/{file.relative_to(home)}")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from edgemask_runtime.release import Release, payload_digest\n"
        "print(payload_digest(Release.open(sys.argv[2]).manifest))\n"
        "foreign = sys.modules.keys() - sys.stdlib_module_names\n"
        "assert all(name == '__main__' or name.startswith('edgemask_runtime') for name in foreign\n"
        "           if '.' not in name), foreign\n"
        "import numpy\n"
    )
    run = [sys.executable, "-I", "-S", "-c", program, str(wheel), str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == payload_digest(Release.open(path).manifest), done.stderr
    assert "No module named 'numpy'" in done.stderr
