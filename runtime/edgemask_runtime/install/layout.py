"""Where everything lies on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SlotName = Literal["a", "b"]
SLOTS: tuple[SlotName, SlotName] = ("a", "b")


@dataclass(frozen=True)
class Layout:
    """The installation under `root`; what it puts elsewhere lies under `system`, which is / on a device."""

    root: Path = Path("/opt/edgemask")
    system: Path = Path("/")

    @property
    def slots(self) -> Path:
        """The folder of both slots."""
        return self.root / "slots"

    @property
    def current(self) -> Path:
        """The link to the slot that runs."""
        return self.root / "current"

    @property
    def state(self) -> Path:
        """What was done last, and what is under way."""
        return self.root / "state.json"

    @property
    def floor(self) -> Path:
        """What of the state may never sink, once more."""
        return self.root / "floor.json"

    @property
    def keys(self) -> Path:
        """The keys that this device trusts."""
        return self.root / "keys.json"

    @property
    def device_key(self) -> Path:
        """What the models are encrypted with, if they are."""
        return self.root / "device.key"

    @property
    def credentials(self) -> Path:
        """The key for a daemon that warms up; in memory on a device, as all of /run is."""
        return self.system / "run/edgemask-warm-up"

    @property
    def lock(self) -> Path:
        """Held while something changes."""
        return self.root / "lock"

    @property
    def settings(self) -> Path:
        """What the daemon runs: a link to the release's settings, or the owner's own file."""
        return self.system / "etc/edgemask/edgemaskd.toml"

    @property
    def units(self) -> Path:
        """Where systemd looks for units."""
        return self.system / "etc/systemd/system"

    @property
    def users(self) -> Path:
        """What systemd-sysusers reads."""
        return self.system / "etc/sysusers.d/edgemask.conf"

    @property
    def program(self) -> Path:
        """`edgemask-device` for whoever is logged in."""
        return self.system / "usr/local/bin/edgemask-device"

    @property
    def data(self) -> Path:
        """What the daemon itself writes, the engines that it builds among it."""
        return self.system / "var/lib/edgemask"

    @property
    def engines(self) -> Path:
        """Those engines, a folder for each bundle, named by the digest of its payload."""
        return self.data / "engines"

    @property
    def card(self) -> Path:
        """What a card brought that was prepared with a release, until its first start is over."""
        return self.system / "var/lib/edgemask-first-boot"

    @property
    def runtime(self) -> Path:
        """The daemon's sockets."""
        return self.system / "run/edgemask"

    def slot(self, name: SlotName) -> Path:
        """A slot's folder."""
        return self.slots / name

    def beside(self, name: SlotName) -> Path:
        """The settings that the owner gave with the version in a slot, while another one runs."""
        return self.settings.with_name(f"edgemaskd.slot-{name}.toml")

    def running(self) -> SlotName | None:
        """The slot that `current` points to, whether or not it is there; None where it points nowhere of ours."""
        if not self.current.is_symlink():
            return None
        target = self.root / self.current.readlink()
        return next((name for name in SLOTS if target == self.slot(name)), None)


def other(name: SlotName | None) -> SlotName:
    """The slot beside this one."""
    return "b" if name == "a" else "a"
