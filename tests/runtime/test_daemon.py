from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .running import COMMAND, run_daemon, running_daemon
from .tiny import LABELS, MakeBundle

NO_HTTP = ("--listen", "none")


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_folder_is_answered_to_its_end(make_bundle: MakeBundle, faces: Path, engine: str) -> None:
    done = run_daemon("run", make_bundle(engine, noisy=True), "--source", faces, "--fps", 0, *NO_HTTP)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [answer["name"] for answer in answers] == [f"{number}.pgm" for number in range(6)]
    assert [answer["top"][0]["label"] for answer in answers] == [LABELS[number % 4] for number in range(6)]
    assert all(answer["age_ms"] >= answer["latency_ms"] > 0 for answer in answers)
    assert "6 frames captured, 6 answered, 0 dropped, 0 expired, 0 failed; latency median" in done.stderr


def test_entropy_is_fresh_in_every_run(make_bundle: MakeBundle, faces: Path) -> None:
    bundle = make_bundle(noisy=True)
    arguments = ("run", bundle, "--source", faces / "0.pgm", "--fps", 0, *NO_HTTP)
    values = [json.loads(run_daemon(*arguments).stdout)["outputs"] for _ in range(2)]
    assert values[0] != values[1]


def test_jpegs_of_another_size_into_a_file(make_bundle: MakeBundle, tmp_path: Path) -> None:
    Image.radial_gradient("L").save(tmp_path / "a.jpg")
    output = tmp_path / "answers.jsonl"
    for _ in range(2):
        done = run_daemon(
            "run", make_bundle(), "--source", tmp_path / "a.jpg", "--output", output, "--loop", "--max-frames", 3,
            "--fps", 0, *NO_HTTP,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(output.read_text().splitlines()) == 6
    assert "256x256, resized to the graph's 6x8" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_it_in_order(make_bundle: MakeBundle, faces: Path, number: int, code: int) -> None:
    with running_daemon(make_bundle(), "--source", faces, "--loop", "--fps", 200) as daemon:
        assert daemon.process.stdout
        lines = [daemon.process.stdout.readline() for _ in range(3)]
        daemon.process.send_signal(number)
        lines += daemon.process.stdout.readlines()
        assert daemon.process.wait(10) == code
        *answers, last = [json.loads(line) for line in lines]
        assert last["invalid"] == "stopping"
        daemon.said(rf"jsonl: {len(answers)} delivered")


def test_without_a_source_it_serves_until_a_signal(make_bundle: MakeBundle) -> None:
    with running_daemon(make_bundle()) as daemon:
        assert daemon.url.startswith("http://127.0.0.1:")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0


def test_a_closed_pipe_ends_it_quietly(make_bundle: MakeBundle, faces: Path) -> None:
    command = [*COMMAND, "run", str(make_bundle()), "--source", str(faces), "--loop", "--fps", "0", *NO_HTTP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 141
        assert "Traceback" not in process.stderr.read()


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "none"), "nothing to do"),
        (("--max-frames", "3"), "--max-frames needs --source"),
        (("--listen", "0.0.0.0:80"), "away from loopback a server needs TLS"),
        (("--listen", "[::]:80"), "away from loopback"),
        (("--listen", "192.168.1.1:80"), "away from loopback"),
        (("--listen", "example.org:80"), "is no IP address"),
        (("--listen", "8700"), "not an address"),
        (("--listen", "127.0.0.1:99999"), "not an address"),
        (("--source", "/absent"), "/absent: no such file or folder"),
        (("--source", "{empty}"), "no images in this folder"),
        (("--source", "{broken}"), "broken.png: not a readable image"),
        (("--source", "{faces}", "--output", "/absent/x"), "/absent/x: cannot write"),
        (("--engine", "litert"), "does not run onnx"),
        (("--engine", "onnxrt"), "did you mean 'onnxruntime'"),
        (("--fps", "fast"), "not a number from 0 to 1000"),
        (("--fps", "nan"), "not a number from 0 to 1000"),
        (("--max-frames", "0"), "not a whole number above 0"),
        (("--threads", "-1"), "--threads"),
    ],
)
def test_bad_input_is_one_clear_error(
    bundle: Path, faces: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    places: dict[str, Any] = {"empty": tmp_path / "empty", "faces": faces, "broken": tmp_path / "broken.png"}
    done = run_daemon("run", bundle, *(argument.format(**places) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_bundle_is_one_clear_error(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    (tmp_path / "bad.edgemask").write_bytes(content[: len(content) // 2])
    done = run_daemon("run", tmp_path / "bad.edgemask")
    assert done.returncode == 2
    assert "bad.edgemask: not a sound bundle" in done.stderr
    assert "hint: " in done.stderr


def test_a_port_in_use_is_one_clear_error(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_daemon("run", bundle, "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert f"error: cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr


def test_the_version() -> None:
    assert run_daemon("--version").stdout == "edgemaskd 0.1.0\n"


FOREIGN = ("edgemask", "onnx", "tensorflow", "PIL", "av", "scipy", "ai_edge_litert", "tflite_runtime")

SHOW_MODULES = """
import sys
from edgemask_runtime.daemon import main
code = main(sys.argv[1:])
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("listen", ["none", "127.0.0.1:0"])
def test_the_device_imports_only_what_it_uses(bundle: Path, faces: Path, listen: str) -> None:
    arguments = ["run", str(bundle), "--source", str(faces), "--fps", "0", "--listen", listen]
    command = [sys.executable, "-c", SHOW_MODULES, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0"
    assert "edgemask_runtime" in modules
    # The engine is in the model's own process.
    assert not set(modules) & {"onnxruntime", *FOREIGN}
    assert ("uvicorn" in modules) == (listen != "none")
