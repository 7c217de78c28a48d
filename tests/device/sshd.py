"""A real sshd on a free port, one process a connection, with keys of its own: what a device is to this program."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    PROGRAM is None or shutil.which("ssh") is None, reason="needs sshd: apt-get install openssh-server"
)
HOST = "board"


class Sshd:
    """Listens in `folder`'s name until it is closed; `ssh_config` makes `board` of it for ssh."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cache = folder / ".cache" / "edgemask"
        self.ssh_config = folder / "ssh_config"
        self.connections: list[socket.socket] = []
        self._sessions: list[subprocess.Popen[bytes]] = []
        for name in ("host", "user"):
            make_key(folder / name)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.configure()
        self.write_client()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def configure(self, *lines: str, environment: str = "") -> None:
        """What later connections find; `environment` is added to what commands get."""
        settings = (
            *lines,
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "PidFile none",
            # A home of its own, without what this machine's user has in its .bashrc.
            f"SetEnv HOME={self.folder} {environment}",
        )
        (self.folder / "sshd_config").write_text("\n".join(settings) + "\n")

    def write_client(self, *lines: str) -> None:
        """A configuration of ssh that knows this host and its key."""
        host_key = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        settings = (
            *lines,
            f"Host {HOST}",
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.folder / 'user'}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.folder / 'known_hosts'}",
            "GlobalKnownHostsFile /dev/null",
        )
        self.ssh_config.write_text("\n".join(settings) + "\n")

    def cut(self) -> None:
        """Take every connection away, as a pulled cable would once the kernel gives up."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def sessions_ended(self) -> None:
        """Wait until nobody is connected any more, which is for the other end to do."""
        for session in self._sessions:
            session.wait(60)

    def close(self) -> None:
        """End it and all its sessions."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()
        for session in self._sessions:
            session.wait()
        for connection in self.connections:
            connection.close()

    def _serve(self) -> None:
        # sshd needs its own absolute path, and root an empty folder that Debian makes when the service starts.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [str(PROGRAM), "-i", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                self.connections.append(connection)
                self._sessions.append(subprocess.Popen(command, stdin=connection, stdout=connection, stderr=log))


def make_key(path: Path, passphrase: str = "") -> None:
    """A fresh pair of keys."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)


def programs(folder: Path, *names: str) -> Path:
    """A folder that holds only these of this machine's programs, for a PATH that lacks the others."""
    folder.mkdir(parents=True)
    for name in names:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder
