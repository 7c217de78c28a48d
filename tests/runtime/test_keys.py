"""The key: a file of the device's own, for its owner alone, exactly as long as the bundle asks; never told."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import httpx
import numpy as np
import pytest

from edgemask_runtime.bundle import Bundle, KeyInput
from edgemask_runtime.errors import UserError
from edgemask_runtime.keys import new_key, read_key
from edgemask_runtime.predictor import Predictor

from .running import run_daemon, running_daemon
from .tiny import PIXELS, MakeBundle, picture

SIZE = 16
NO_HTTP = ("--listen", "none")


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """The noisy classifier whose noise is not drawn but is the key."""
    return make_bundle(noisy=True, entropy=None, key=KeyInput("entropy", PIXELS, published=False))


def file_with(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_new_key_is_its_owners_alone_and_never_the_same(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        for name in ("one", "other"):
            new_key(tmp_path / name, SIZE)
    finally:
        os.umask(previous)
    one, other = (read_key(tmp_path / name, SIZE) for name in ("one", "other"))
    assert len(one) == SIZE
    assert one != other
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_key_is_never_written_over_another_file(tmp_path: Path) -> None:
    path = file_with(tmp_path, bytes(SIZE))
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for taken in (path, tmp_path / "dangling"):
        with pytest.raises(UserError, match="there is a file already"):
            new_key(taken, SIZE)
    assert path.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_have_rights_on_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match="others than its owner") as error:
        read_key(file_with(tmp_path, bytes(SIZE), mode), SIZE)
    assert str(error.value.hint).startswith("chmod 600")


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_key_of_another_length_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(UserError, match=r"key: (larger than the 16 bytes|\d+ bytes; the key has 16)"):
        read_key(file_with(tmp_path, bytes(size)), SIZE)


def test_no_file_is_no_key(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match=r"(cannot read: No such|no) file"):
            read_key(path, SIZE)


def test_the_same_key_goes_to_every_frame_of_a_batch(bundle: Path, tmp_path: Path) -> None:
    answers = []
    for seed in (1, 2):
        key = np.random.default_rng(seed).bytes(PIXELS)
        predictor = Predictor.open(Bundle.open(bundle), key=file_with(tmp_path, key))
        answers.append(predictor.predict(np.full((8, 8, 6, 1), 9, np.uint8))["probabilities"])
    assert [len(np.unique(answer, axis=0)) for answer in answers] == [1, 1]
    assert not np.allclose(answers[0][0], answers[1][0])


def test_the_daemon_makes_a_key_and_answers_with_it(bundle: Path, faces: Path, tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    made = run_daemon("new-key", bundle, "-o", path)
    assert (made.returncode, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600), made.stderr
    runs = [run_daemon("run", bundle, "--key", path, "--source", faces, "--fps", 0, *NO_HTTP) for _ in range(2)]
    answers = [[json.loads(line)["outputs"] for line in done.stdout.splitlines()] for done in runs]
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr
    assert len(answers[0]) == 6
    assert answers[0] == answers[1]
    assert path.read_bytes().hex() not in "".join(done.stdout + done.stderr for done in (made, *runs))
    assert run_daemon("new-key", bundle, "-o", path).returncode == 2


def test_a_bundle_without_its_key_says_how_to_make_one(bundle: Path, faces: Path) -> None:
    done = run_daemon("run", bundle, "--source", faces, *NO_HTTP)
    assert done.returncode == 2
    assert f"tiny needs its key of {PIXELS} bytes" in done.stderr
    assert "edgemaskd new-key BUNDLE -o FILE" in done.stderr


@pytest.mark.parametrize("key", [None, KeyInput("key", PIXELS, published=True)])
def test_a_bundle_that_takes_no_key_gets_none(make_bundle: MakeBundle, key: KeyInput | None, tmp_path: Path) -> None:
    bundle, path = make_bundle(key=key), file_with(tmp_path, bytes(PIXELS))
    Predictor.open(Bundle.open(bundle))
    with pytest.raises(UserError, match="tiny takes no key"):
        Predictor.open(Bundle.open(bundle), key=path)
    done = run_daemon("new-key", bundle, "-o", tmp_path / "other")
    assert (done.returncode, (tmp_path / "other").exists()) == (2, False)


def test_a_client_neither_sends_nor_sees_the_key(bundle: Path, tmp_path: Path) -> None:
    frame = {"name": "frame", "datatype": "UINT8", "shape": [1, 8, 6, 1], "data": picture(2).ravel().tolist()}
    sent = {"name": "entropy", "datatype": "UINT8", "shape": [1, PIXELS], "data": [0] * PIXELS}
    with running_daemon(bundle, "--key", file_with(tmp_path, bytes(PIXELS))) as daemon:
        model = f"{daemon.url}/v2/models/tiny"
        assert [entry["name"] for entry in httpx.get(model).json()["inputs"]] == ["frame"]
        for inputs in ([frame, sent], [sent], [{**frame, "name": "key"}]):
            refused = httpx.post(f"{model}/infer", json={"inputs": inputs})
            assert (refused.status_code, "only input" in refused.text) == (400, True)
        assert httpx.post(f"{model}/infer", json={"inputs": [frame]}).status_code == 200


def test_the_graph_must_take_the_key_that_the_manifest_states(make_bundle: MakeBundle, tmp_path: Path) -> None:
    for stated in (KeyInput("entropy", PIXELS - 1, published=False), KeyInput("key", PIXELS, published=False)):
        bundle = Bundle.open(make_bundle(noisy=True, entropy=None, key=stated))
        with pytest.raises(UserError, match="manifest does not state"):
            Predictor.open(bundle, key=file_with(tmp_path, bytes(stated.bytes)))
