"""An aarch64 board in an emulator: power on, log in over SSH, cut the power, power on again with the same disk."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import rootfs
from .debian import tool

MACHINE = "-M virt -smp 2 -accel tcg,thread=multi -display none -no-reboot -monitor none"
# A loaded machine takes three times what an idle one does, and then some.
BOOT_S = 900.0
ASK_S = 600.0


class Board:
    """One board: its disk is an overlay in `folder`, which keeps what was written when the power is cut.

    `disk` and `boot` (kernel, first files, kernel's words) stand for the board's own; `more` goes to the emulator.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cpu: str = "cortex-a72",
        memory_mb: int = 1024,
        disk: Path | None = None,
        boot: tuple[Path, Path, str] | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.folder, self.cpu, self.memory_mb, self.more = folder, cpu, memory_mb, more
        self.boot_files = boot or (*rootfs.boot_files(), "console=ttyAMA0 quiet panic=-1")
        folder.mkdir(parents=True, exist_ok=True)
        self.disk, self.console, self.ssh_config = folder / "disk.qcow2", folder / "console.log", folder / "ssh_config"
        self.socket = folder / "line"
        self.port, self.http_port = _free_port(), _free_port()
        self.machine: subprocess.Popen[bytes] | None = None
        self.line: subprocess.Popen[bytes] | None = None
        backing = str(disk or rootfs.disk())
        if not self.disk.exists():
            made = ["-q", "-f", "qcow2", "-F", "raw", "-b", backing, str(self.disk)]
            subprocess.run([tool("qemu-img"), "create", *made], check=True)
        self._write_ssh_config()

    def power_on(self) -> None:
        """Start the machine; `wait_for_ssh` says when it is up."""
        assert self.machine is None
        kernel, initrd, words = self.boot_files
        with self.console.open("ab") as console:
            # The machine ends with the tests, however they end.
            command = [tool("setpriv"), "--pdeathsig", "KILL", tool("qemu-system-aarch64"), *MACHINE.split()]
            command += ["-cpu", self.cpu, "-m", str(self.memory_mb), "-kernel", str(kernel), "-initrd", str(initrd)]
            command += ["-append", words, "-serial", "stdio", *self._devices(), *self.more]
            self.machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def wait_for_ssh(self, timeout_s: float = BOOT_S) -> float:
        """Wait until somebody can log in; the seconds that it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            assert self.machine is not None
            assert self.machine.poll() is None, self.console.read_text(errors="replace")[-3000:]
            if self._answers() and self.run("true", check=False).returncode == 0:
                self._keep_a_line()
                return time.monotonic() - begun
            time.sleep(1)
        raise TimeoutError(f"no login within {timeout_s} s:\n{self.console.read_text(errors='replace')[-3000:]}")

    def boot(self) -> float:
        """Power on and wait for a login; the seconds that it took."""
        self.power_on()
        return self.wait_for_ssh()

    def cut_power(self) -> None:
        """What an unplugged cable does: nothing in the machine hears of it."""
        self._gone()

    def shut_down(self) -> None:
        """Power off in order, so that all is on the disk."""
        assert self.machine is not None
        self.run("systemctl", "poweroff", check=False)
        self.machine.wait(timeout=BOOT_S)
        self._gone()

    def run(
        self, *command: str, check: bool = True, timeout_s: float = ASK_S, user: str = "root", data: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the board; each argument arrives as it is."""
        shared = ["-S", str(self.socket)] if user == "root" else []
        asked = ["ssh", "-F", str(self.ssh_config), *shared, f"{user}@board", shlex.join(command)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=timeout_s, input=data)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ask(self, *command: str, timeout_s: float = ASK_S) -> str:
        """What a command on the board prints."""
        return self.run(*command, timeout_s=timeout_s).stdout

    def shell(self, script: str, *, check: bool = True, timeout_s: float = ASK_S) -> str:
        """Run a script in the board's shell, and return what it printed."""
        return self.run("sh", "-c", script, check=check, timeout_s=timeout_s).stdout

    def write(self, path: str, text: str) -> None:
        """Put a file onto the board."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}); cat > {path}", data=text)

    def journal(self, unit: str, lines: int = 60) -> str:
        """The newest lines of a unit's journal."""
        return self.run("journalctl", "-u", unit, "-n", str(lines), "--no-pager", "-o", "cat", check=False).stdout

    def _devices(self) -> list[str]:
        forwards = f"hostfwd=tcp:127.0.0.1:{self.port}-:22,hostfwd=tcp:127.0.0.1:{self.http_port}-:8080"
        drive = f"if=none,id=d,file={self.disk},format=qcow2,cache=writeback"
        devices = ["-drive", drive, "-device", "virtio-blk-pci,drive=d", "-device", "virtio-rng-pci"]
        return [*devices, "-netdev", f"user,id=n,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=n,romfile="]

    def _keep_a_line(self) -> None:
        """One connection for all that root runs, for a handshake takes an emulated processor seconds."""
        command = [tool("setpriv"), "--pdeathsig", "KILL", tool("ssh"), "-F", str(self.ssh_config), "-MNT"]
        self.line = subprocess.Popen(
            [*command, "-S", str(self.socket), "root@board"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _gone(self) -> None:
        """What is left to do when the machine has no power any more."""
        for process in (self.machine, self.line):
            if process is not None:
                process.kill()
                process.wait()
        self.machine = self.line = None
        self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        """Whether sshd says its first word; the emulator itself takes every connection."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
                return line.recv(4) == b"SSH-"
        except OSError:
            return False

    def _write_ssh_config(self) -> None:
        known = self.folder / "known_hosts"
        known.write_text(f"board {rootfs.host_key()}")
        lines = ["Host board 127.0.0.1", "  HostName 127.0.0.1", f"  Port {self.port}", "  HostKeyAlias board"]
        lines += [f"  UserKnownHostsFile {known}", "  StrictHostKeyChecking yes", "  IdentitiesOnly yes"]
        lines += [f"  IdentityFile {rootfs.login_key()}", "  ConnectTimeout 120", "  ServerAliveInterval 30"]
        self.ssh_config.write_text("\n".join(lines) + "\n")


@contextmanager
def powered(folder: Path) -> Iterator[Board]:
    """A board that is up; its power is cut at the end."""
    board = Board(folder)
    try:
        board.boot()
        yield board
    finally:
        board.cut_power()


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


if __name__ == "__main__":
    with powered(Path(sys.argv[1])) as shown:
        print(f"ssh -F {shown.ssh_config} root@board     Ctrl-C cuts the power")
        signal.sigwait({signal.SIGINT})
