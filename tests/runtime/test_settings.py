"""Device settings: read strictly, every fault at once, and no contradiction to a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemask_runtime.addresses import SHAPE, Address
from edgemask_runtime.bundle import OutputRecord
from edgemask_runtime.cameras import CAMERAS, camera_settings
from edgemask_runtime.cameras.folder import FolderSettings
from edgemask_runtime.errors import UserError
from edgemask_runtime.manifest import CanRecord
from edgemask_runtime.service import check, named
from edgemask_runtime.settings import Settings, read_settings
from edgemask_runtime.sinks import SINKS, sink_settings
from edgemask_runtime.sinks.jsonl import LinesSettings

from .running import run_daemon
from .tiny import MakeBundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "edgemaskd.toml"
MODEL_KEYS = "name bundle engine threads key socket group deadline_s memory_mb".split()
GOOD = """
schema = 1
[http]
listen = "127.0.0.1:8700"
[[models]]
name = "faces"
bundle = "faces.edgemask"
threads = 2
[[pipelines]]
name = "front"
model = "faces"
max_age_ms = 200
stall_s = 2
[pipelines.source]
kind = "folder"
path = "/photos"
loop = true
[[pipelines.sinks]]
kind = "jsonl"
path = "answers.jsonl"
[[pipelines.sinks]]
kind = "jsonl"
"""


def read(tmp_path: Path, text: str, name: str = "edgemaskd.toml") -> Settings:
    (tmp_path / name).write_text(text)
    return read_settings(tmp_path / name)


def refused(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    return caught.value.message.replace(f"{tmp_path}/edgemaskd.toml: ", "").splitlines()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD)
    (pipeline,) = settings.pipelines
    assert settings.models[0].bundle == tmp_path / "faces.edgemask"
    assert pipeline.source.settings == FolderSettings(Path("/photos"), None, True)
    assert [sink.settings for sink in pipeline.sinks] == [LinesSettings(tmp_path / "answers.jsonl"), LinesSettings()]
    assert (pipeline.max_age_ms, pipeline.stall_s) == (200, 2.0)
    assert list(named(pipeline.sinks)) == ["jsonl", "jsonl-2"]


def test_paths_of_a_link_are_relative_to_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "slot").mkdir()
    (tmp_path / "slot" / "settings.toml").write_text(GOOD)
    (tmp_path / "current").symlink_to("slot")
    (tmp_path / "edgemaskd.toml").symlink_to(tmp_path / "current" / "settings.toml")
    assert read_settings(tmp_path / "edgemaskd.toml") == read_settings(tmp_path / "slot" / "settings.toml")


def test_json_says_the_same(tmp_path: Path) -> None:
    source = {"kind": "folder", "path": "/photos"}
    document = {
        "schema": 1,
        "models": [{"name": "faces", "bundle": "f.edgemask"}],
        "pipelines": [{"name": "front", "model": "faces", "source": source}],
    }
    settings = read(tmp_path, json.dumps(document), "edgemaskd.json")
    assert settings.pipelines[0].source.settings == FolderSettings(Path("/photos"))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """
    schema = 1
    [http]
    listen = "here"
    [[models]]
    name = "a b"
    bundle = ""
    thread = 2
    [[pipelines]]
    name = "front"
    model = "face"
    max_age_ms = 0
    [pipelines.source]
    kind = "foldr"
    [[pipelines.sinks]]
    kind = "jsonl"
    pth = "x"
    [[pipelines.sinks]]
    path = "x"
    """
    assert refused(tmp_path, text) == [
        f'$.http.listen: value "here"; allowed: {SHAPE}',
        f"$.models[0].thread: unknown key; allowed: {', '.join(MODEL_KEYS)}; did you mean 'threads'?",
        '$.models[0].name: value "a b"; allowed: text like [A-Za-z0-9][A-Za-z0-9._-]{0,99}',
        '$.models[0].bundle: value ""; allowed: the path of a file',
        f"$.pipelines[0].source.kind: value 'foldr'; allowed: {', '.join(CAMERAS)}; did you mean 'folder'?",
        "$.pipelines[0].sinks[0].pth: unknown key; allowed: path, max_mb; did you mean 'path'?",
        f"$.pipelines[0].sinks[1].kind: missing; allowed: {', '.join(SINKS)}",
        "$.pipelines[0].max_age_ms: value 0; allowed: 1 to 3600000",
    ]  # fmt: skip


def test_what_belongs_together_is_checked_together(tmp_path: Path) -> None:
    text = GOOD.replace('model = "faces"', 'model = "face"').replace(
        "[[models]]", '[grpc]\nlisten = "10.0.0.1:1"\n[[models]]'
    )
    text += '[[models]]\nname = "faces"\nbundle = "b"\nengine = "onnxrunt"\n'
    lines = refused(tmp_path, text)
    assert lines[0] == "$.models[1].name: value 'faces'; allowed: a name of its own"
    assert "did you mean 'onnxruntime'" in lines[1]
    assert lines[2] == "$.pipelines[0].model: value 'face'; allowed: faces, faces; did you mean 'faces'?"
    assert lines[3].endswith("$.grpc.listen: value '10.0.0.1:1'; allowed: loopback, or certificate and private_key")
    assert lines[4].endswith("$.grpc.listen: value '10.0.0.1:1'; allowed: loopback, or token_file, or client_ca")


OPEN = 'schema = 1\n[http]\nlisten = "0.0.0.0:8700"\n{}\n[[models]]\nname = "m"\nbundle = "m.edgemask"\n'


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("token_file = 't'", "loopback, or certificate and private_key"),
        ("certificate = 'c'\ntoken_file = 't'", "$.http.private_key: missing"),
        ("certificate = 'c'\nprivate_key = 'k'", "loopback, or token_file, or client_ca"),
        ("client_ca = 'a'", "$.http.client_ca: without a certificate"),
    ],
)
def test_an_open_door_needs_tls_and_to_know_its_clients(tmp_path: Path, keys: str, said: str) -> None:
    assert said in "\n".join(refused(tmp_path, OPEN.format(keys)))


@pytest.mark.parametrize("known", ["token_file = 't'", "client_ca = 'a'"])
def test_a_door_with_tls_and_known_clients_may_be_open(tmp_path: Path, known: str) -> None:
    settings = read(tmp_path, OPEN.format(f"certificate = 'c'\nprivate_key = 'k'\n{known}"))
    assert settings.http
    assert settings.http.certificate == tmp_path / "c"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema = 1", "$.models: missing"),
        ("schema = 2", "$.schema: value 2; allowed: 1"),
        ("schema = 1\n[[models]]\nname = 'a'\nbundle = 'b'", "$: nothing to do"),
        ("schema = ", "not valid TOML"),
        ("schema = 1\nmodels = 2026-01-01", "value \"2026-01-01\"; allowed: a list"),
        (GOOD.replace("stall_s = 2", "stall_s = nan"), "not valid TOML: nan is out of range"),
        (GOOD.replace("stall_s = 2", "stall_s = inf"), "not valid TOML: inf is out of range"),
        ("[a]\n[a]", "not valid TOML"),
    ],
)  # fmt: skip
def test_what_is_no_settings_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(refused(tmp_path, text))


@pytest.mark.parametrize("table", [(CAMERAS, camera_settings), (SINKS, sink_settings)], ids=["cameras", "sinks"])
def test_every_kind_states_its_settings(table: object) -> None:
    kinds, settings_of = table  # type: ignore[misc]
    assert all(settings_of(kind).__dataclass_params__.frozen for kind in kinds)


def test_a_kind_whose_package_is_missing_is_a_fault_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(kind: str) -> None:
        raise UserError(f"the sink {kind} needs paho", "pip install 'edgemask-runtime[mqtt]'")

    monkeypatch.setattr("edgemask_runtime.settings.sink_settings", missing)
    text = GOOD.replace("threads = 2", "threads = 0")
    lines = refused(tmp_path, text)
    assert "$.models[0].threads: value 0; allowed: 1 to 256" in lines
    assert (
        "$.pipelines[0].sinks[0].kind: the sink jsonl needs paho; allowed: pip install 'edgemask-runtime[mqtt]'"
        in lines
    )


def test_the_example_is_read_and_shows_what_there_is() -> None:
    settings = read_settings(EXAMPLE)
    assert settings.http
    assert settings.grpc
    assert len(settings.pipelines) > 1
    assert len(settings.models) > 1


def test_addresses_are_read() -> None:
    assert Address.parse("localhost:0") == Address("127.0.0.1", 0)
    assert Address.parse("[::1]:80").is_loopback
    assert not Address.parse("0.0.0.0:80").is_loopback
    for wrong in ("8700", "127.0.0.1:99999", "example.org:80", "[1]:2"):
        with pytest.raises(ValueError, match="address"):
            Address.parse(wrong)


SUSPICIOUS = (OutputRecord("probabilities", "float32", (None, 4), "suspicion"),)


def bundled(tmp_path: Path, bundle: Path, changes: str) -> Settings:
    text = GOOD.replace("faces.edgemask", str(bundle)).replace("max_age_ms = 200", changes)
    return read(tmp_path, text)


def test_what_a_manifest_states_may_be_tightened_only(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(outputs=SUSPICIOUS, thresholds={"probabilities": 0.9}, max_age_ms=300)
    tighter = "max_age_ms = 300\nthresholds = { probabilities = 0.9 }"
    assert check(bundled(tmp_path, bundle, tighter), "f")["faces"].max_age_ms == 300
    looser = "max_age_ms = 301\nthresholds = { probabilities = 0.91, other = 1 }"
    text = bundled(tmp_path, bundle, looser)
    with pytest.raises(UserError) as caught:
        check(text, "f")
    assert caught.value.message.splitlines() == [
        "f: $.pipelines[0].max_age_ms: value 301 is above the manifest's; allowed: 1 to 300",
        "f: $.pipelines[0].thresholds.probabilities: value 0.91 is above the manifest's; allowed: at most 0.9",
        "f: $.pipelines[0].thresholds.other: unknown output; allowed: probabilities",
    ]


def test_check_says_what_would_run_and_names_every_fault(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundled(tmp_path, make_bundle(), "")
    done = run_daemon("check", tmp_path / "edgemaskd.toml")
    assert done.returncode == 0, done.stderr
    assert "model faces: tiny for host" in done.stdout
    assert "pipeline front: folder -> faces -> jsonl, jsonl\nhttp: 127.0.0.1:8700" in done.stdout
    bundled(tmp_path, tmp_path / "absent", "")
    done = run_daemon("check", tmp_path / "edgemaskd.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "$.models[0].bundle: " in done.stderr


def test_a_settings_file_takes_no_flags(tmp_path: Path) -> None:
    read(tmp_path, GOOD)
    done = run_daemon("run", tmp_path / "edgemaskd.toml", "--threads", "2")
    assert done.returncode == 2
    assert "--threads does not go with a settings file" in done.stderr


def test_a_bus_gets_what_the_bundle_allows_and_at_most_as_often(make_bundle: MakeBundle, tmp_path: Path) -> None:
    sink = '[[pipelines.sinks]]\nkind = "can"\nchannel = "can0"\nperiod_ms = 50\n'
    allowed = CanRecord("classification", 0x640, False, 0x640, 100)
    for records, fault in (
        ((), "sinks[2].kind: value 'can'; allowed: other kinds: the bundle states no message for a CAN bus"),
        ((allowed,), "sinks[2].period_ms: value 50 is below the manifest's; allowed: 100 or more"),
    ):
        text = GOOD.replace("faces.edgemask", str(make_bundle(can=records))) + sink
        with pytest.raises(UserError) as caught:
            check(read(tmp_path, text), "f")
        assert caught.value.message == f"f: $.pipelines[0].{fault}"
    fine = GOOD.replace("faces.edgemask", str(make_bundle(can=(allowed,)))) + sink.replace("50", "200")
    assert check(read(tmp_path, fine), "f")["faces"].can == (allowed,)
