"""The health gate: whether the daemon that was just started may stay."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgemask_runtime.errors import UserError
from edgemask_runtime.install.services import Services, ServiceState
from edgemask_runtime.install.slots import Door

POLL_S = 0.25
STEADY_S = 5.0
START_LIMIT_S = 2700.0
READY_LIMIT_S = 15.0
DEAD = ("failed", "inactive")
READY = "/v2/health/ready"
ASK_S = 5.0


class Unhealthy(UserError):
    """The daemon did not get through the gate."""


def pass_gate(
    services: Services, before: str, door: Door | None, tell: Callable[[str], None], *, steady_s: float = STEADY_S
) -> None:
    """Wait until another start than `before` is ready, answers at its door and stays up; Unhealthy as soon as not."""
    deadline_s = time.monotonic() + START_LIMIT_S
    tell("waiting until the daemon is ready")
    while not _is_up(state := _alive(services, before), before):
        if time.monotonic() > deadline_s:
            raise _unhealthy(services, f"not ready after {START_LIMIT_S:.0f} s ({state.active}, {state.sub})")
        time.sleep(POLL_S)
    _pass_door(services, before, door)
    tell("watching that it stays up")
    deadline_s = time.monotonic() + steady_s
    while time.monotonic() < deadline_s:
        if not _is_up(_alive(services, before), before):
            raise _unhealthy(services, "it left the state of being up")
        time.sleep(POLL_S)


def _alive(services: Services, before: str) -> ServiceState:
    """Its state; Unhealthy when it crashed, failed or ended."""
    state = services.state()
    if state.run in ("", before):
        return state
    if state.restarts or state.active in DEAD or state.sub == "auto-restart":
        raise _unhealthy(services, f"the daemon ended at its start: {state.result or state.sub}")
    return state


def _is_up(state: ServiceState, before: str) -> bool:
    return state.run not in ("", before) and state.active == "active" and state.sub == "running"


def _pass_door(services: Services, before: str, door: Door | None) -> None:
    deadline_s = time.monotonic() + READY_LIMIT_S
    while door and not (answer := asked(door)).good:
        _alive(services, before)
        if time.monotonic() > deadline_s:
            raise _unhealthy(services, f"http://{door.host}:{door.port}{READY}: {answer.text}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Answer:
    """What the door said, and whether the daemon behind it is ready."""

    good: bool
    text: str


def asked(door: Door) -> Answer:
    """Ask the door; one that wants to know who asks has answered, too."""
    try:
        if door.certified:
            # Why no more: whom it does not know it hangs up on, without a word that tells this from a fault.
            _shake_hands(door)
            return Answer(True, "it wants a client's certificate")
        status = ask(door)
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"no answer: {str(error) or type(error).__name__}")
    return Answer(status in (200, 401, 403), f"it answers {status}")


def ask(door: Door) -> int:
    """The HTTP status of the door's answer; OSError or HTTPException where there is none."""
    connection = http.client.HTTPConnection(door.host, door.port, timeout=ASK_S)
    if door.tls:
        connection = http.client.HTTPSConnection(door.host, door.port, timeout=ASK_S, context=_trusting())
    try:
        connection.request("GET", READY)
        return connection.getresponse().status
    finally:
        connection.close()


def _shake_hands(door: Door) -> None:
    """Begin TLS with the server, whose part of it shows its certificate; OSError where it does not."""
    with socket.create_connection((door.host, door.port), timeout=ASK_S) as channel:
        _trusting().wrap_socket(channel).close()


def _trusting() -> ssl.SSLContext:
    # Why unverified: it is this very machine, and nothing is told to it.
    return ssl._create_unverified_context()  # noqa: S323


def _unhealthy(services: Services, what: str) -> Unhealthy:
    said = " | ".join(services.said().splitlines())
    hint = "`journalctl -u edgemaskd` tells more; `edgemask-device rollback` goes back to the version before"
    return Unhealthy(f"{what}{f'; it said: {said}' if said else ''}", hint)
