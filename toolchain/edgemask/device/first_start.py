"""What is put into an image of Raspberry Pi OS so that the board's first start installs a release, and what its owner
wants beside it: a name on the network, a user with an ssh key, settings.

The install is a unit of its own in the system partition: it needs nothing of firstrun.sh, custom.toml or cloud-init,
whose names and formats change from one Raspberry Pi OS to the next, and leaves them to rpi-imager. User and ssh go the
documented way that Bookworm and Trixie share, userconf.txt and ssh on the boot partition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemask.device.filesystems import Placed
from edgemask.device.os_image import OsImage
from edgemask.errors import UserError

PLACE = "/var/lib/edgemask-first-boot"
STATE = "/opt/edgemask/state.json"
UNIT = "edgemask-first-boot.service"
UNITS = "/etc/systemd/system"
LOG = "edgemask-first-boot.txt"
RELEASE, PLAN, KEY = "edgemask.release", "plan.json", "enrol.pub"
SETTINGS = "/etc/edgemask/edgemaskd.toml"
WAITING = "This card installs its Edgemask release at its first start. What happened will be told here.\n"
UNIT_TEXT = """# Put here by `edgemask flash`; takes itself away once the release is installed.
[Unit]
Description=Install the Edgemask release that came with this card
ConditionPathExists={place}/plan.json
# The system partition grows at the first start, and the install needs the room.
After=systemd-growfs-root.service rpi-resize.service resize2fs_once.service local-fs.target
# What a power cut left of an install comes into order first.
After=edgemask-recover.service

[Service]
# Why not oneshot: nothing else at boot has to wait for it.
Type=exec
Environment=PYTHONPATH={place}/{wheel}
ExecStart=/usr/bin/python3 -m edgemask_runtime.install.first_boot

[Install]
WantedBy=multi-user.target
"""
HOSTNAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
USER = r"[a-z][a-z0-9-]{0,31}"
SSH_KEY = r"(ssh-(ed25519|rsa)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( [^\n]*)?"
FIRST_UID = "1000"
USERCONF = "/usr/lib/userconf-pi/userconf-service"


@dataclass(frozen=True)
class Wishes:
    """What the owner wants beside the release. `user` and `ssh_key` come together."""

    hostname: str | None = None
    user: str | None = None
    ssh_key: Path | None = None
    settings: Path | None = None

    def check(self) -> None:
        """UserError for what cannot be, before anything is read or written."""
        if self.hostname is not None and not re.fullmatch(HOSTNAME, self.hostname):
            raise UserError(f"--hostname {self.hostname!r}", "small letters, digits and -, 63 at most: camera-1")
        if (self.user is None) != (self.ssh_key is None):
            raise UserError("--user and --ssh-key come together", "--user me --ssh-key ~/.ssh/id_ed25519.pub")
        if self.user is not None and (self.user == "root" or not re.fullmatch(USER, self.user)):
            raise UserError(
                f"--user {self.user!r}", "small letters, digits and -, a letter first, 32 at most; not root"
            )
        if self.ssh_key is not None:
            keys(self.ssh_key)


def keys(path: Path) -> list[str]:
    """The public keys in a file; UserError for anything else, a private key most of all."""
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read a public key: {error}", "ssh-keygen -t ed25519 makes one") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if any("PRIVATE KEY" in line for line in lines):
        raise UserError(f"{path}: is a private key, which stays where it is", f"name the public one: {path}.pub")
    if not found or not all(re.fullmatch(SSH_KEY, line) for line in found):
        raise UserError(f"{path}: holds no public keys of ssh", "name a file like ~/.ssh/id_ed25519.pub")
    return found


def plan_json(prepared: int, install: Sequence[str]) -> str:
    """plan.json, which `edgemask_runtime.install.first_boot` carries out: when, and the installer's arguments."""
    return json.dumps({"schema": 1, "prepared": prepared, "install": list(install)}, sort_keys=True, indent=2) + "\n"


def install_files(release: Path, wheel: str, content: bytes, plan: str, key: bytes) -> list[Placed]:
    """The release, the runtime's wheel that reads it on a bare board, the key, the plan and the unit."""
    return [
        Placed(f"{PLACE}/{RELEASE}", release, mode=0o600),
        Placed(f"{PLACE}/{wheel}", content),
        Placed(f"{UNITS}/{UNIT}", UNIT_TEXT.format(place=PLACE, wheel=wheel).encode()),
        Placed(f"{UNITS}/multi-user.target.wants/{UNIT}", link=f"../{UNIT}"),
        Placed(f"{PLACE}/{KEY}", key),
        Placed(f"{PLACE}/{PLAN}", plan.encode()),
    ]


def wished_files(image: OsImage, wishes: Wishes) -> list[Placed]:
    """What the wishes come to in the system partition."""
    return [*_hostname(image, wishes), *_login(image, wishes), *_settings(wishes)]


def boot_files(wishes: Wishes) -> dict[str, bytes]:
    """And in the boot partition."""
    files = {LOG: WAITING.encode()}
    if wishes.user is not None:
        # The password is one that nothing matches: whoever has the key gets in, and nobody else.
        files |= {"userconf.txt": f"{wishes.user}:*\n".encode(), "ssh": b""}
    return files


def owned_folders(image: OsImage, wishes: Wishes) -> dict[str, int]:
    """Folders that are their owner's alone, and whose."""
    return {} if wishes.user is None else {f"{_home(image)}/.ssh": int(FIRST_UID)}


def _hostname(image: OsImage, wishes: Wishes) -> Iterator[Placed]:
    if wishes.hostname is None:
        return
    yield Placed("/etc/hostname", f"{wishes.hostname}\n".encode())
    lines = (image.root.read("/etc/hosts") or b"").decode("utf-8", "replace").splitlines()
    others = [line for line in lines if line.split()[:1] != ["127.0.1.1"]]
    yield Placed("/etc/hosts", "\n".join([*others, f"127.0.1.1\t{wishes.hostname}", ""]).encode())


def _login(image: OsImage, wishes: Wishes) -> Iterator[Placed]:
    """The keys in the first user's folder, which the first start renames; and sudo, which has no password to ask."""
    if wishes.user is None or wishes.ssh_key is None:
        return
    if image.root.entry(USERCONF) is None:
        raise UserError(f"{image.path}: {image.title} renames no user ({USERCONF} is missing)", "leave --user away")
    text = "".join(f"{key}\n" for key in keys(wishes.ssh_key))
    _check_free(image, wishes.user)
    yield Placed(f"{_home(image, wishes.user)}/.ssh/authorized_keys", text.encode(), mode=0o600, owner=int(FIRST_UID))
    rule = f"{wishes.user} ALL=(ALL) NOPASSWD: ALL\n"
    yield Placed("/etc/sudoers.d/010-edgemask", rule.encode(), mode=0o440)


def _home(image: OsImage, wanted: str | None = None) -> str:
    """The folder of the image's first user."""
    users = [fields for fields in _entries(image, "/etc/passwd") if len(fields) == 7 and fields[2] == FIRST_UID]
    found = image.root.entry(users[0][5]) if users else None
    if found is None or found.kind != "directory":
        raise UserError(f"{image.path}: {image.title} has no first user to rename", "leave --user away")
    # Its first start of April 2026 does not give such a user a shell under the old name.
    if wanted == users[0][0] and users[0][6].endswith("nologin"):
        raise UserError(f"--user {wanted}: {image.title} lets {wanted} in under another name only", "take another name")
    return users[0][5]


def _check_free(image: OsImage, wanted: str) -> None:
    """UserError for a name that the system gave to an account or a group of its own: it would get sudo."""
    entries = [*_entries(image, "/etc/passwd"), *_entries(image, "/etc/group")]
    if wanted in {fields[0] for fields in entries if fields[2:3] != [FIRST_UID]}:
        raise UserError(f"--user {wanted}: {image.title} has an account or a group of that name", "take another name")


def _entries(image: OsImage, path: str) -> list[list[str]]:
    """The fields of each line of a file like /etc/passwd."""
    text = (image.root.read(path) or b"").decode("utf-8", "replace")
    return [line.split(":") for line in text.splitlines()]


def _settings(wishes: Wishes) -> Iterator[Placed]:
    if wishes.settings is not None:
        yield Placed(SETTINGS, wishes.settings)
