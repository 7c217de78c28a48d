"""What ssh says when it fails, as its cause and the next command."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgemask.device.destination import Destination
from edgemask.errors import UserError

Hint = Callable[[Destination, str], str]


def _always(text: str) -> Hint:
    return lambda _, __: text


def _forget_key(to: Destination, said: str) -> str:
    # ssh knows the name and the file that the key is under, where a configuration gives the host another name.
    found = re.search(r"ssh-keygen -f .* -R .*", said)
    command = found[0].strip() if found else f"ssh-keygen -R {to.host}"
    return f"if the device was set up anew, and only then, forget its old key: {command}"


# In the order they are looked for: ssh says several of them where a host's key has changed.
FAULTS: tuple[tuple[str, str, Hint], ...] = (
    (
        r"Bad configuration option|terminating, \d+ bad configuration|Bad owner or permissions on",
        "ssh does not take its configuration",
        _always("mend the file that ssh names, then try again"),
    ),
    (
        "Could not resolve hostname",
        "no host has this name",
        _always("check the name; `edgemask devices` lists what announces itself on this network"),
    ),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key is not the one that this machine knows: another device, or somebody in between",
        _forget_key,
    ),
    (
        "REVOKED HOST KEY",
        "its host key was revoked here: another device, or somebody in between",
        _always("ask whoever keeps known_hosts"),
    ),
    (
        "Host key verification failed|No .* host key is known",
        "its host key is not known on this machine, and was not accepted",
        lambda to, _: f"compare the fingerprint with the device's own, and accept it: {to.command}",
    ),
    (
        "Connection refused",
        "nothing takes ssh connections on that port",
        _always(
            "start ssh on the device: sudo systemctl enable --now ssh (Raspberry Pi: raspi-config, Interface Options)"
        ),
    ),
    (
        "[Tt]imed out|No route to host|Network is unreachable|Host is down",
        "it does not answer",
        lambda to, _: f"is it switched on and on this network? ping {to.host}; `edgemask devices` lists what is there",
    ),
    (
        "Too many authentication failures",
        "it was offered too many keys",
        _always("name the right one in ~/.ssh/config: IdentityFile, and IdentitiesOnly yes"),
    ),
    (
        "Permission denied",
        "it lets this user in neither by key nor by password",
        lambda to, _: f"put your key there: ssh-copy-id {' '.join(_copy_arguments(to))}; and check the user's name",
    ),
    (
        "no matching (host key type|cipher|key exchange method|MAC) found",
        "its ssh is too old or too new for this machine's",
        lambda to, _: f"see what they have in common: {to.command} -v",
    ),
    (
        "kex_exchange_identification|banner exchange|Connection (closed|reset) by|Connection to .* closed|Broken pipe",
        "it closed the connection before anybody was let in",
        lambda to, _: f"it may be starting, or refuse this machine; try again, then: {to.command} -v",
    ),
)


def ssh_error(destination: Destination, said: str) -> UserError:
    """What to tell of a connection that did not come about, from what ssh said on standard error."""
    for pattern, cause, hint in FAULTS:
        if re.search(pattern, said):
            return UserError(f"{destination}: {cause}{_quoted(said, pattern)}", hint(destination, said))
    last = _last_line(said)
    return UserError(f"{destination}: ssh failed{f': {last}' if last else ''}", f"try it alone: {destination.command}")


def lost(destination: Destination, said: str = "") -> UserError:
    """What to tell of a connection that broke in the middle."""
    last = _last_line(said)
    message = f"{destination}: the connection was lost{f': {last}' if last else ''}"
    return UserError(message, f"run the same command again; what the device does now: edgemask status {destination}")


def _copy_arguments(destination: Destination) -> list[str]:
    port = [] if destination.port is None else ["-p", str(destination.port)]
    return [*port, destination.login]


def _quoted(said: str, pattern: str) -> str:
    line = next((line.strip() for line in said.splitlines() if re.search(pattern, line)), "")
    return f" ({line.strip('@ ')})" if line else ""


def _last_line(said: str) -> str:
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
