"""Doors away from loopback: TLS, a token, clients' certificates; and that without them nothing opens."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import trustme

from edgemask_runtime.api.opening import control_of, open_door
from edgemask_runtime.bundle import Bundle
from edgemask_runtime.errors import UserError
from edgemask_runtime.install.gate import Answer, asked
from edgemask_runtime.install.slots import Door
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.settings import DoorSettings

from .serving import WAIT_S
from .tiny import MakeBundle

TOKEN = "0123456789abcdef0123456789abcdef"
LIVE = "/inference.GRPCInferenceService/ServerLive"


@pytest.fixture(scope="module")
def models(make_bundle: MakeBundle) -> dict[str, Predictor]:
    return {"tiny": Predictor.open(Bundle.open(make_bundle()))}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """Certificate, key, authority and token, as `openssl` would leave them."""
    made = {name: tmp_path / name for name in ("certificate", "private_key", "client_ca", "token_file")}
    issued = authority.issue_cert("127.0.0.1", "0.0.0.0", "localhost")
    made["certificate"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    made["private_key"].write_bytes(issued.private_key_pem.bytes())
    made["client_ca"].write_bytes(authority.cert_pem.bytes())
    made["token_file"].write_text(f"{TOKEN}\n")
    for path in made.values():
        path.chmod(0o600)
    return made


def door(files: dict[str, Path], *names: str, listen: str = "0.0.0.0:0") -> DoorSettings:
    return replace(DoorSettings(listen), **{name: files[name] for name in names})


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "needs TLS"),
        (("token_file",), "needs TLS"),
        (("certificate", "private_key"), "who asks"),
        (("certificate", "token_file"), "come together"),
        (("private_key", "client_ca"), "come together"),
    ],
)
def test_nothing_opens_without_them(
    models: Any, files: dict[str, Path], protocol: str, names: tuple[str, ...], reason: str
) -> None:
    for listen in ("0.0.0.0:0", "[::]:0", "192.0.2.1:8700"):
        with pytest.raises(UserError, match=reason) as refused:
            open_door(protocol, control_of(models), door(files, *names, listen=listen))
        assert "127.0.0.1" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("name", "content", "mode", "reason"),
    [
        ("token_file", TOKEN, 0o640, "others than its owner"),
        ("token_file", "short", 0o600, "no token"),
        ("token_file", "x" * 5000, 0o600, "larger"),
        ("token_file", "two words, two words", 0o600, "no token"),
        ("private_key", None, 0o644, "everybody may read"),
        ("private_key", "junk", 0o600, "no certificate in PEM"),
        ("certificate", "junk", 0o600, "no certificate in PEM"),
        ("client_ca", "junk", 0o600, "no certificate in PEM"),
    ],
)
def test_every_file_is_looked_at_first(
    models: Any, files: dict[str, Path], name: str, content: str | None, mode: int, reason: str
) -> None:
    if content is not None:
        files[name].write_text(content)
    files[name].chmod(mode)
    with pytest.raises(UserError, match=reason) as refused:
        open_door("http", control_of(models), door(files, *files))
    assert str(files[name]) in refused.value.message
    assert TOKEN not in refused.value.message


def test_another_ones_key_is_refused(models: Any, files: dict[str, Path], authority: trustme.CA) -> None:
    files["private_key"].write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
    with pytest.raises(UserError, match="not this key's"):
        open_door("grpc", control_of(models), door(files, *files))


def trusting(files: dict[str, Path], authority: trustme.CA, certified: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files["client_ca"]))
    if certified:
        authority.issue_cert("client@example.org").configure_cert(context)
    return context


def reachable(url: str) -> str:
    return url.replace("0.0.0.0", "127.0.0.1")


def test_a_token_over_https(
    models: Any, files: dict[str, Path], authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = open_door("http", control_of(models), door(files, "certificate", "private_key", "token_file"))
    try:
        context = trusting(files, authority)
        with httpx.Client(base_url=reachable(server.url), verify=context, timeout=WAIT_S) as client:
            for headers in (
                {},
                {"Authorization": "Bearer"},
                {"Authorization": f"Bearer {TOKEN}x"},
                {"Authorization": TOKEN},
            ):
                refused = client.get("/v2", headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert client.post("/v2/models/tiny/infer", json={}, headers=headers).status_code == 401
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            document = client.get("/v2", headers={"Host": "camera.example"}).raise_for_status().json()
            assert "system_shared_memory" not in document["extensions"]
            assert client.post("/v2/models/tiny/infer", json={}).status_code == 400
            assert client.get("/v2/systemsharedmemory/status").status_code == 400
            assert client.post("/v2/repository/models/tiny/load").status_code == 403
            assert client.get("/v2", headers={"Origin": "https://other.example"}).status_code == 403
        with pytest.raises(httpx.HTTPError):
            httpx.get(reachable(server.url).replace("https", "http"))
    finally:
        server.close()
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_not_spoken(
    models: Any, files: dict[str, Path], authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    server = open_door("http", control_of(models), door(files, "certificate", "private_key", "token_file"))
    try:
        context = trusting(files, authority)
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError):
            httpx.get(reachable(server.url), verify=context)
    finally:
        server.close()


def test_clients_certificates_over_https(models: Any, files: dict[str, Path], authority: trustme.CA) -> None:
    server = open_door("http", control_of(models), door(files, "certificate", "private_key", "client_ca"))
    try:
        at = f"{reachable(server.url)}/v2/health/live"
        assert httpx.get(at, verify=trusting(files, authority, certified=True)).status_code == 200
        stranger = trusting(files, authority)
        trustme.CA().issue_cert("client@example.org").configure_cert(stranger)
        for context in (trusting(files, authority), stranger):
            with pytest.raises(httpx.HTTPError):
                httpx.get(at, verify=context)
    finally:
        server.close()


def test_the_gate_takes_a_door_that_asks_who_comes_and_no_other_fault(models: Any, files: dict[str, Path]) -> None:
    wants = open_door("http", control_of(models), door(files, "certificate", "private_key", "client_ca"))
    token = open_door("http", control_of(models), door(files, "certificate", "private_key", "token_file"))
    plain = open_door("http", control_of(models), DoorSettings("127.0.0.1:0"))
    try:
        for _ in range(10):
            assert asked(at(wants.url, certified=True)) == Answer(True, "it wants a client's certificate")
        assert asked(at(token.url)) == Answer(True, "it answers 401")
        assert not asked(at(wants.url)).good
        assert not asked(at(plain.url)).good
        assert not asked(at(plain.url, certified=True)).good
    finally:
        for one in (wants, token, plain):
            one.close()
    assert not asked(at(wants.url, certified=True)).good


def at(url: str, *, certified: bool = False) -> Door:
    parts = urlsplit(reachable(url))
    assert parts.hostname
    assert parts.port
    return Door(parts.hostname, parts.port, tls=True, certified=certified)


def test_a_token_over_grpc(models: Any, files: dict[str, Path], authority: trustme.CA) -> None:
    server = open_door("grpc", control_of(models), door(files, "certificate", "private_key", "token_file"))
    trust = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    try:
        with grpc.secure_channel(reachable(server.url).removeprefix("grpcs://"), trust) as channel:
            live = channel.unary_unary(LIVE)
            assert live(b"", metadata=[("authorization", f"Bearer {TOKEN}")], timeout=WAIT_S) == b"\x08\x01"
            for metadata in ([], [("authorization", "Bearer x")]):
                with pytest.raises(grpc.RpcError) as refused:
                    live(b"", metadata=metadata, timeout=WAIT_S)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            with pytest.raises(grpc.RpcError, match="Bearer TOKEN"):
                next(stream(iter([b""]), timeout=WAIT_S))
    finally:
        server.close()


def test_clients_certificates_over_grpc(models: Any, files: dict[str, Path], authority: trustme.CA) -> None:
    server = open_door("grpc", control_of(models), door(files, "certificate", "private_key", "client_ca"))
    address, trust = reachable(server.url).removeprefix("grpcs://"), authority.cert_pem.bytes()
    issued = authority.issue_cert("client@example.org")
    own = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    try:
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(trust, *own)) as channel:
            assert channel.unary_unary(LIVE)(b"", timeout=WAIT_S) == b"\x08\x01"
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(trust)) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(LIVE)(b"", timeout=WAIT_S)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        server.close()


def test_a_token_may_be_asked_for_on_loopback_too(models: Any, files: dict[str, Path]) -> None:
    server = open_door("http", control_of(models), door(files, "token_file", listen="127.0.0.1:0"))
    try:
        assert httpx.get(f"{server.url}/v2").status_code == 401
        answer = httpx.get(f"{server.url}/v2", headers={"Authorization": f"Bearer {TOKEN}"})
        assert "system_shared_memory" in answer.json()["extensions"]
    finally:
        server.close()
