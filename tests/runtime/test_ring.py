from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemask_runtime.about import Outputs
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.entropy import NoEntropy
from edgemask_runtime.errors import ModelDown, UserError
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.ring.access import listen
from edgemask_runtime.ring.client import LocalModel
from edgemask_runtime.ring.connection import Connection
from edgemask_runtime.ring.memory import new_memory, sealed_copy
from edgemask_runtime.ring.protocol import ANSWER, ATTACH, MAGIC, OK, REQUEST, VERSION, Layout, Welcome
from edgemask_runtime.ring.server import MAX_CLIENTS
from edgemask_runtime.unix import MAX_PATH_BYTES

from .echo import Echo, serving
from .tiny import LABELS, SHAPE, MakeBundle, picture

LAYOUT = Layout(1, 1, 48, 2 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def echo(path: Path) -> Iterator[Path]:
    with serving(path, Echo()):
        yield path


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, SHAPE, np.uint8)


def raw(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connected.settimeout(60)
    connected.connect(os.fspath(path))
    return connected


def attach(path: Path, memory: int, message: bytes = ATTACH.pack(MAGIC, VERSION, 1, 1)) -> socket.socket:
    """Do by hand what a C client would do."""
    connected = raw(path)
    connected.recv(4096)
    socket.send_fds(connected, [message], [memory])
    os.close(memory)
    return connected


def test_a_model_answers_as_its_predictor_does(make_bundle: MakeBundle, path: Path) -> None:
    predictor = Predictor.open(Bundle.open(make_bundle()))
    with serving(path, predictor), LocalModel.connect(path, rows=3) as model:
        assert model.about == predictor.about
        outputs = model.infer(np.stack([picture(k) for k in (2, 0, 3)]))
        direct = predictor.predict(np.stack([picture(k) for k in (2, 0, 3)]))
        np.testing.assert_array_equal(outputs["probabilities"], direct["probabilities"])
        assert [model.read(outputs, row).top[0].label for row in range(3)] == [LABELS[k] for k in (2, 0, 3)]
        assert model.infer(picture(1))["probabilities"].argmax() == 1


def test_the_frame_is_filled_in_place_and_outputs_are_copies(echo: Path) -> None:
    with LocalModel.connect(echo) as model:
        view = model.frame
        view[:] = frame(1)
        first = model.infer()
        view[:] = frame(2)
        second = model.infer()
        np.testing.assert_array_equal(first["echo"][0], frame(1))
        np.testing.assert_array_equal(second["echo"][0], frame(2))
        np.testing.assert_array_equal(second["found"], np.flatnonzero(frame(2) > 200))


def test_several_requests_may_be_under_way(echo: Path) -> None:
    connection = Connection(raw(echo), slots=4, rows=2)
    for round_ in range(3):
        numbers = []
        for slot in range(4):
            connection.frames[slot][:] = frame(10 * round_ + slot)
            numbers.append(connection.send(slot, 2))
        for slot, number in enumerate(numbers):
            np.testing.assert_array_equal(connection.receive(number)["echo"][1], frame(10 * round_ + slot))
    connection.close()


def test_many_clients_each_get_their_own_answers(echo: Path) -> None:
    def ask(client: int) -> None:
        with LocalModel.connect(echo) as model:
            for number in range(50):
                shown = frame(1000 * client + number)
                np.testing.assert_array_equal(model.infer(shown)["echo"][0], shown)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(16)))


def test_threads_share_a_client(echo: Path) -> None:
    with LocalModel.connect(echo) as model, ThreadPoolExecutor(8) as pool:
        shown = [frame(number) for number in range(200)]
        for sent, outputs in zip(shown, pool.map(model.infer, shown), strict=True):
            np.testing.assert_array_equal(outputs["echo"][0], sent)


@pytest.mark.parametrize("wrong", [frame(0)[1:], frame(0).astype(np.int16), np.zeros((3, *SHAPE), np.uint8)])
def test_frames_that_do_not_fit_are_told(echo: Path, wrong: Any) -> None:
    with LocalModel.connect(echo, rows=2) as model:
        with pytest.raises(UserError) as caught:
            model.infer(wrong)
        assert caught.value.hint == "the model takes uint8 [8, 6, 1], or up to 2 of them"


def test_a_frame_that_the_model_refuses_is_that_frames_error(echo: Path) -> None:
    with LocalModel.connect(echo) as model:
        with pytest.raises(UserError, match="this frame fails") as caught:
            model.infer(np.full(SHAPE, 66, np.uint8))
        assert caught.value.hint == "show another one"
        with pytest.raises(NoEntropy, match="repeats itself"):
            model.infer(np.full(SHAPE, 67, np.uint8))
        np.testing.assert_array_equal(model.infer(frame(3))["echo"][0], frame(3))


def test_a_client_cannot_change_a_frame_that_is_being_looked_at(path: Path) -> None:
    """The detector must see what the model sees."""
    changed, looking = Event(), Event()

    class Looking(Echo):
        def predict(self, frames: Any) -> Outputs:
            first = frames.copy()
            looking.set()
            assert changed.wait(60)
            np.testing.assert_array_equal(frames, first)
            return super().predict(frames)

    with serving(path, Looking()), LocalModel.connect(path) as model, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(model.infer, frame(1))
        assert looking.wait(60)
        model.frame[:] = frame(2)
        changed.set()
        np.testing.assert_array_equal(asked.result(60)["echo"][0], frame(1))


def test_a_fixed_batch_is_the_only_one(path: Path) -> None:
    with serving(path, Echo(batch=2)), LocalModel.connect(path) as model:
        assert model.frames.shape == (2, *SHAPE)
        np.testing.assert_array_equal(model.infer(np.stack([frame(1), frame(2)]))["echo"][1], frame(2))
        with raw(path) as client:
            client.recv(4096)
            layout = Layout(1, 2, 48, Welcome.unpack(welcome_of(path)).output_bytes)
            message = ATTACH.pack(MAGIC, VERSION, 1, 2)
            socket.send_fds(client, [message], [new_memory("x", layout.memory_bytes)])
            assert ANSWER.unpack(client.recv(99))[1] == OK
            client.send(REQUEST.pack(1, 0, 1))
            assert b"1 rows" in client.recv(999)


def welcome_of(path: Path) -> bytes:
    with raw(path) as client:
        return client.recv(4096)


def unsealed() -> int:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, 1 << 24)
    return descriptor


@pytest.mark.parametrize(
    ("memory", "message", "said"),
    [
        (unsealed, ATTACH.pack(MAGIC, VERSION, 1, 1), b"not sealed"),
        (lambda: os.open("/dev/zero", os.O_RDWR), ATTACH.pack(MAGIC, VERSION, 1, 1), b"not sealed"),
        (lambda: new_memory("x", 4096), ATTACH.pack(MAGIC, VERSION, 1, 1), b"its slots need"),
        (lambda: sealed_copy("x", bytes(1 << 22)), ATTACH.pack(MAGIC, VERSION, 1, 1), b"cannot be mapped"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(MAGIC, VERSION, 0, 1), b"0 slots"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(MAGIC, VERSION, 17, 1), b"17 slots"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(MAGIC, VERSION, 1, 65), b"65 rows"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(MAGIC, VERSION, 16, 64), b"16 slots of 64 rows"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(MAGIC, 2, 1, 1), b"version 1"),
        (lambda: new_memory("x", 1 << 24), ATTACH.pack(b"EMSJ", VERSION, 1, 1), b"version 1"),
        (lambda: new_memory("x", 1 << 24), b"GET /", b"5 bytes, not 16"),
    ],
)
def test_memory_that_is_not_as_agreed_is_refused(echo: Path, memory: Any, message: bytes, said: bytes) -> None:
    with LocalModel.connect(echo) as other, attach(echo, memory(), message) as client:
        assert said in client.recv(4096)
        assert client.recv(4096) == b""
        np.testing.assert_array_equal(other.infer(frame(5))["echo"][0], frame(5))


def test_a_first_message_without_memory_is_refused(echo: Path) -> None:
    with raw(echo) as client:
        client.recv(4096)
        client.send(ATTACH.pack(MAGIC, VERSION, 1, 1))
        assert b"no memory came" in client.recv(4096)


def test_nobody_can_shrink_the_memory_any_more() -> None:
    descriptor = new_memory("x", 4096)
    for size in (0, 8192):
        with pytest.raises(PermissionError):
            os.truncate(descriptor, size)
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    os.close(descriptor)


@pytest.mark.parametrize(
    "request_", [b"x", bytes(17), REQUEST.pack(1, 1, 1), REQUEST.pack(1, 0, 0), REQUEST.pack(1, 0, 2)]
)
def test_a_malformed_request_ends_its_client_alone(echo: Path, request_: bytes) -> None:
    with LocalModel.connect(echo) as other, attach(echo, new_memory("x", LAYOUT.memory_bytes)) as client:
        assert client.recv(99) == ANSWER.pack(0, OK, 0)
        client.send(request_)
        assert b"request" in client.recv(4096)
        assert client.recv(4096) == b""
        np.testing.assert_array_equal(other.infer(frame(6))["echo"][0], frame(6))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4), st.booleans())
def test_no_bytes_hurt_the_server(messages: list[bytes], attached: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "s", Echo()):
        path = Path(folder) / "s"
        client = attach(path, new_memory("x", LAYOUT.memory_bytes)) if attached else raw(path)
        with client:
            client.setblocking(False)
            for message in messages:
                with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                    client.send(message)
            with LocalModel.connect(path) as other:
                np.testing.assert_array_equal(other.infer(frame(7))["echo"][0], frame(7))


def test_a_client_that_takes_no_answers_is_dropped(echo: Path) -> None:
    with LocalModel.connect(echo) as other, attach(echo, new_memory("x", LAYOUT.memory_bytes)) as client:
        client.recv(99)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            all(client.send(REQUEST.pack(1, 0, 1)) for _ in count())
        np.testing.assert_array_equal(other.infer(frame(8))["echo"][0], frame(8))


def test_clients_are_bounded_and_leave_nothing(echo: Path) -> None:
    before = descriptors()
    models = [LocalModel.connect(echo) for _ in range(MAX_CLIENTS)]
    with pytest.raises(UserError, match="32 clients are connected"):
        LocalModel.connect(echo)
    for model in models:
        model.close()
    del models, model
    for _ in range(100):
        with LocalModel.connect(echo) as again:
            again.infer(frame(1))
    del again
    with LocalModel.connect(echo) as last:
        last.infer(frame(1))
        assert descriptors() <= before + 6


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_server_that_goes_in_order_loses_no_frame(path: Path) -> None:
    with serving(path, Echo()):
        model = LocalModel.connect(path)
        view = model.frame
    with pytest.raises(ModelDown, match="no daemon answers"):
        model.infer(frame(1))
    with serving(path, Echo()):
        view[:] = frame(2)
        np.testing.assert_array_equal(model.infer()["echo"][0], frame(2))
        model.close()


def test_a_server_of_other_frames_is_not_followed(path: Path) -> None:
    with serving(path, Echo()):
        model = LocalModel.connect(path)
    with serving(path, Echo(batch=2)), pytest.raises(UserError, match="another model is there now"):
        model.infer(frame(1))
    model.close()


def test_an_answer_to_another_request_is_not_taken() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    echo, places = Echo(), struct.pack("<7Q", 64, 1, 8, 6, 1, 128, 0)
    about = echo.about.to_json().encode()
    with theirs, ThreadPoolExecutor(1) as pool:
        opened = pool.submit(Connection, ours)
        socket.send_fds(theirs, [Welcome(48, 2048, 0, 1, 1, len(about)).pack()], [sealed_copy("x", about)])
        theirs.recv(99)
        theirs.send(ANSWER.pack(0, OK, 0))
        connection = opened.result(60)
        theirs.send(ANSWER.pack(1, OK, 1) + places)
        assert connection.infer(1).keys() == {"echo", "found"}
        theirs.send(ANSWER.pack(1, OK, 1) + places)
        with pytest.raises(UserError, match="the answer is that of request 1, not of 2"):
            connection.infer(1)
        assert connection.closed


def test_what_is_no_ring_is_told(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(os.fspath(path))
        listener.listen()
        opened = pool.submit(LocalModel.connect, path)
        with listener.accept()[0] as connected:
            connected.send(b"EMSK, or so it says")
        with pytest.raises(UserError, match="no Edgemask model"):
            opened.result(60)


def test_a_server_that_says_nothing_is_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        with pytest.raises(ModelDown, match=r"did not answer in 0.05 s"):
            LocalModel.connect(path, timeout_s=0.05)


def test_no_socket_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot connect: No such file"):
        LocalModel.connect(tmp_path / "absent")


def test_a_socket_that_was_left_is_replaced_and_one_that_answers_is_not(path: Path) -> None:
    listen(path).close()
    with listen(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UserError, match="another program listens"):
            listen(path)
    path.unlink()
    path.write_text("mine")
    with pytest.raises(UserError, match="it is no socket"):
        listen(path)
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match="longer than a socket's path may be"):
        listen(Path("/" + "x" * MAX_PATH_BYTES))
    with pytest.raises(UserError, match="cannot listen: No such file"):
        listen(Path("/absent/socket"))
    with pytest.raises(UserError, match="no group"):
        listen(path.with_name("t"), group="no-such-group")


CONNECT = """
import os, sys
from edgemask_runtime.errors import UserError
from edgemask_runtime.ring.client import LocalModel
who, *groups = map(int, sys.argv[2:])
os.setgroups(groups)
os.setresgid(who, who, who)
os.setresuid(who, who, who)
try:
    LocalModel.connect(sys.argv[1]).close()
    print("welcome")
except UserError as error:
    print(error.message)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("mode", "who", "said"),
    [
        (0o660, "65534", "welcome"),
        (0o660, "65533 65534", "welcome"),
        (0o660, "65533", "Permission denied"),
        (0o666, "65533", "this user may not use the model"),
        (0o666, "65533 65534", "welcome"),
    ],
)
def test_only_the_owner_and_the_group_may_connect(mode: int, who: str, said: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "s"
        path.parent.chmod(0o755)
        with serving(path, Echo(), group="nogroup"):
            path.chmod(mode)
            command = [sys.executable, "-c", CONNECT, str(path), *who.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert said in done.stdout
