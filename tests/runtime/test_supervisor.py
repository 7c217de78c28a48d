"""Real workers, really killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemask_runtime.bundle import Bundle, payload_digest
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.remote import Remote
from edgemask_runtime.ring.client import LocalModel
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.worker_process import ModelOptions

from .echo import echo_bundle
from .tiny import LABELS, SHAPE, MakeBundle, picture

LIMIT_S = 60.0


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    return echo_bundle(tmp_path / "echo.edgemask")


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, SHAPE, np.uint8)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere."""
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def slow_bundle(path: Path) -> Path:
    """A bundle whose model adds 0 to its frame's first value half a million times."""
    first = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("before", "after")]
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    go, on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on"))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["before", "nothing"], ["after"])],
        "body",
        [step, go, first[0]],
        [on, first[1]],
    )
    constants = {"times": np.array(500_000), "yes": np.array(True), "nothing": np.array(0, np.float32)}
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["real"], ["most"], keepdims=0),
        helper.make_node("Loop", ["times", "yes", "most"], ["same"], body=body),
        helper.make_node("Mul", ["same", "nothing"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["none"], to=TensorProto.UINT8),
        helper.make_node("Add", ["frame", "none"], ["echo"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *SHAPE]) for name in ("frame", "echo")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "slow", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return echo_bundle(path, model=model.SerializeToString())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def answers(model: Any, number: int = 1) -> bool:
    try:
        outputs = model.predict(frame(number)[None])
    except ModelDown:
        return False
    np.testing.assert_array_equal(outputs["echo"][0], frame(number))
    return True


def gone(process_id: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return True


def test_a_deadline_that_one_inference_misses_is_refused_at_the_start(tmp_path: Path) -> None:
    slow = slow_bundle(tmp_path / "slow.edgemask")
    with pytest.raises(UserError, match=r"one inference takes [\d.]+ s on this machine") as caught:
        Supervisor([ModelOptions("slow", slow, deadline_s=0.1)])
    assert caught.value.hint
    with Supervisor([ModelOptions("slow", slow, deadline_s=600)]) as running:
        assert answers(running.models["slow"])


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_worker_answers_as_a_predictor_does(make_bundle: MakeBundle, engine: str) -> None:
    bundle = make_bundle(engine)
    with Supervisor([ModelOptions("tiny", bundle)]) as running:
        remote, direct = running.models["tiny"], Predictor.open(Bundle.open(bundle))
        assert remote.about == direct.about
        assert (remote.digest, remote.engine.name, remote.trouble) == (direct.digest, engine, None)
        for shown in range(4):
            outputs = remote.predict(picture(shown)[None])
            expected = direct.predict(picture(shown)[None])["probabilities"]
            np.testing.assert_array_equal(outputs["probabilities"], expected)
            assert outputs.read().top[0].label == LABELS[shown]


def test_batches_of_any_size_go_through(echo: Path) -> None:
    with Supervisor([ModelOptions("echo", echo)]) as running:
        for rows in (1, 2, 3, 5, 64):
            shown = np.stack([frame(number) for number in range(rows)])
            np.testing.assert_array_equal(running.models["echo"].predict(shown)["echo"], shown)
        with pytest.raises(UserError, match="frames of uint8"):
            running.models["echo"].predict(np.zeros((65, *SHAPE), np.uint8))
        assert answers(running.models["echo"])


def test_entropy_is_fresh_for_every_frame(make_bundle: MakeBundle) -> None:
    with Supervisor([ModelOptions("noisy", make_bundle(noisy=True))]) as running:
        remote = running.models["noisy"]
        drawn = {remote.predict(picture(0)[None])["probabilities"].tobytes() for _ in range(20)}
        assert len(drawn) == 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_started_again_alone(echo: Path, number: int) -> None:
    options = [ModelOptions("hurt", echo, deadline_s=2), ModelOptions("other", echo, deadline_s=LIMIT_S)]
    with Supervisor(options) as running:
        hurt, other = running.models["hurt"], running.models["other"]
        before, unhurt = hurt.process_id, other.process_id
        assert before
        os.kill(before, number)
        until(lambda: answers(other) and hurt.restarts > 0)
        until(lambda: answers(other) and answers(hurt))
        assert hurt.process_id != before
        assert gone(before)
        assert (other.process_id, other.restarts) == (unhurt, 0)


def test_who_waits_when_it_dies_is_told_at_once(echo: Path) -> None:
    with Supervisor([ModelOptions("echo", echo, deadline_s=LIMIT_S)]) as running, ThreadPoolExecutor(4) as pool:
        remote = running.models["echo"]
        assert answers(remote)
        process_id = remote.process_id
        assert process_id
        os.kill(process_id, signal.SIGSTOP)
        waiting = [pool.submit(remote.predict, frame(1)[None]) for _ in range(4)]
        os.kill(process_id, signal.SIGKILL)
        for asked in waiting:
            assert isinstance(asked.exception(LIMIT_S), (ModelDown, type(None)))
        until(lambda: answers(remote))


def test_a_worker_that_takes_too_much_memory_is_ended(echo: Path) -> None:
    with Supervisor([ModelOptions("greedy", echo, memory_mb=1)]) as running:
        remote = running.models["greedy"]
        until(lambda: "MB of memory, of 1" in (remote.trouble or ""))
        until(lambda: not answers(remote))


def test_a_worker_may_do_little_and_leaves_no_dump(echo: Path) -> None:
    with Supervisor([ModelOptions("echo", echo)]) as running:
        place = Path(f"/proc/{running.models['echo'].process_id}")
        assert "NoNewPrivs:\t1" in (place / "status").read_text()
        limits = (place / "limits").read_text()
        assert "0                    0" in next(line for line in limits.splitlines() if "core file" in line)
        assert (place / "oom_score_adj").read_text().strip() == "500"


SUPERVISE = """
import sys
from pathlib import Path
from edgemask_runtime.supervisor import ModelOptions, Supervisor
running = Supervisor([ModelOptions("echo", Path(sys.argv[1]))])
print(running.models["echo"].process_id, flush=True)
sys.stdin.read()
"""


def test_a_worker_never_outlives_the_daemon(echo: Path) -> None:
    command = [sys.executable, "-c", SUPERVISE, str(echo)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        process_id = int(daemon.stdout.readline())
        os.kill(process_id, signal.SIGSTOP)
        daemon.kill()
    until(lambda: gone(process_id))


def test_a_model_that_cannot_start_is_an_error_at_once(echo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.edgemask").write_bytes(echo.read_bytes()[:500])
    options = [ModelOptions("good", echo), ModelOptions("bad", tmp_path / "bad.edgemask")]
    with pytest.raises(UserError, match="not a sound bundle") as caught:
        Supervisor(options)
    assert caught.value.hint
    with pytest.raises(UserError, match="takes no key"):
        Supervisor([ModelOptions("echo", echo, key=tmp_path / "key")])


def test_a_refused_bundle_at_the_same_path_is_never_started(echo: Path, tmp_path: Path) -> None:
    """A device's update renames a new file over the old one: what crashes then must come back as it was."""
    with Supervisor([ModelOptions("echo", echo)]) as running:
        remote = running.models["echo"]
        before, digest = remote.process_id, remote.digest
        (tmp_path / "new").write_bytes(echo.read_bytes()[:500])
        (tmp_path / "new").rename(echo)
        with pytest.raises(UserError, match=r"echo.edgemask: not a sound bundle"):
            running.reload("echo", echo)
        assert before
        os.kill(before, signal.SIGKILL)
        until(lambda: remote.restarts > 0 and answers(remote))
        assert (remote.digest, gone(before)) == (digest, True)


def test_a_model_may_be_unloaded_and_loaded(echo: Path) -> None:
    with Supervisor([ModelOptions("echo", echo)]) as running:
        remote = running.models["echo"]
        before = remote.process_id
        assert before
        running.unload("echo")
        assert gone(before)
        with pytest.raises(ModelDown, match="it was unloaded"):
            remote.predict(frame(1)[None])
        running.load("echo")
        assert answers(remote)
        with pytest.raises(UserError, match="unknown model 'ecko'"):
            running.unload("ecko")


class Traffic:
    """Threads and local programs that ask without a pause and see whether each answer is that of their own frame."""

    def __init__(self, remote: Remote, path: Path, *, may_fail: bool) -> None:
        self._remote, self._path, self._may_fail = remote, path, may_fail
        self._stop = Event()
        self.digests: set[str] = set()
        self.answered = 0

    def through_daemon(self, seed: int) -> None:
        self._ask(seed, lambda shown: self._remote.predict(shown[None]))

    def through_ring(self, seed: int) -> None:
        with LocalModel.connect(self._path, timeout_s=LIMIT_S) as model:
            self._ask(seed, model.infer)

    def _ask(self, seed: int, ask: Callable[[np.ndarray[Any, Any]], Any]) -> None:
        source = np.random.default_rng(seed)
        while not self._stop.is_set():
            shown = source.integers(0, 256, SHAPE, np.uint8)
            try:
                outputs = ask(shown)
            except ModelDown:
                assert self._may_fail
                continue
            np.testing.assert_array_equal(outputs["echo"][0], shown)
            self.digests.add(outputs.about.digest)
            self.answered += 1

    def __enter__(self) -> Traffic:
        self._pool = ThreadPoolExecutor(8)
        self._asking = [self._pool.submit(self.through_daemon, seed) for seed in range(4)]
        self._asking += [self._pool.submit(self.through_ring, seed) for seed in range(4, 8)]
        return self

    def progress(self) -> None:
        """Wait until much was answered again, or an assertion failed."""
        enough = self.answered + 200
        until(lambda: self.answered > enough or any(asked.done() for asked in self._asking))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for asked in self._asking:
            asked.result()


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    return [echo_bundle(tmp_path / f"{version}.edgemask", version) for version in "ab"]


def test_a_reload_loses_no_frame_and_answers_say_whose_they_are(bundles: list[Path], tmp_path: Path) -> None:
    options, before = ModelOptions("echo", bundles[0], socket=tmp_path / "s", deadline_s=LIMIT_S), descriptors()
    with Supervisor([options]) as running, Traffic(running.models["echo"], tmp_path / "s", may_fail=False) as traffic:
        for number in range(4):
            traffic.progress()
            about = running.reload("echo", bundles[(number + 1) % 2])
            assert running.models["echo"].digest == about.digest
        traffic.progress()
        assert traffic.digests == {payload_digest(Bundle.open(bundle).manifest) for bundle in bundles}
        assert running.models["echo"].restarts == 0
    assert not (tmp_path / "s").exists()
    del traffic, running
    gc.collect()
    assert descriptors() <= before


def test_no_answer_is_another_frames_while_workers_die(bundles: list[Path], tmp_path: Path) -> None:
    options = ModelOptions("echo", bundles[0], socket=tmp_path / "s", deadline_s=LIMIT_S)
    with Supervisor([options]) as running, Traffic(running.models["echo"], tmp_path / "s", may_fail=True) as traffic:
        for _ in range(3):
            traffic.progress()
            process_id = running.models["echo"].process_id
            if process_id:
                os.kill(process_id, signal.SIGKILL)
            until(lambda: answers(running.models["echo"]))
            running.reload("echo", bundles[1])


def test_a_bundle_of_other_frames_or_outputs_does_not_take_over(
    echo: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with Supervisor([ModelOptions("echo", echo)]) as running:
        remote = running.models["echo"]
        before = remote.process_id
        wrong = [make_bundle(), make_bundle("litert"), tmp_path / "absent.edgemask"]
        for bundle, said in zip(wrong, ["another outputs", "another frame", "no such bundle"], strict=True):
            with pytest.raises(UserError, match=said):
                running.reload("echo", bundle)
            assert answers(remote)
        assert (remote.process_id, remote.restarts) == (before, 0)


def test_a_model_that_nobody_asks_costs_next_to_nothing(make_bundle: MakeBundle) -> None:
    """A ping that follows each answer at once would keep two processors busy."""
    with Supervisor([ModelOptions("tiny", make_bundle())]) as running:
        process_id = running.models["tiny"].process_id
        begun_s = cpu_s(process_id)
        time.sleep(2)
        assert cpu_s(process_id) - begun_s < 0.5


def cpu_s(process_id: int | None) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
