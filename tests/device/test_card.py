"""--to: which words mean what, and a card from the release to the disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgemask.cli import app
from edgemask.device.card import Card, Written, flash_card, is_card
from edgemask.device.card_commands import agreed_serial, ask, check_for_hosts, is_no_host
from edgemask.device.disk import Consent
from edgemask.device.enrolment import enrolment_for
from edgemask.device.first_start import PLACE
from edgemask.device.jetson import MODULES, Module, help_text, help_values, modules_for
from edgemask.device.os_image import open_os_image
from edgemask.errors import UserError
from edgemask.signing import DEVELOPMENT, development_key, keygen
from edgemask.target import find_target

from .cards import MB, loop_device, make_card, needs_tools, raspberry_tree
from .prepared import own_key, signed_release


def never(question: str) -> str:
    raise AssertionError(question)


def quiet(step: str, done: int, of: int) -> None:
    """Nobody watches."""


NOBODY = Consent(never)


def test_an_expired_release_goes_onto_no_card(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_key(monkeypatch, tmp_path / "config")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release", expires="2020-01-01T00:00:00Z")
    (tmp_path / "raspios.img").write_bytes(b"not looked at")
    for card in (
        Card(tmp_path / "raspios.img", NOBODY, out=tmp_path / "sd.img"),
        Card(Path("/dev/edgemask-none"), NOBODY, tmp_path / "raspios.img"),
    ):
        with pytest.raises(UserError, match=r"tiny\.release: expired at 2020-01-01T00:00:00Z") as caught:
            flash_card(release, enrolment_for(release), card, quiet)
        assert "--expires" in str(caught.value.hint)
    assert not (tmp_path / "sd.img").exists()


@pytest.mark.parametrize(
    ("to", "card"),
    [
        ("sd.img", True),
        ("raspios.img.xz", True),
        ("./board", True),
        ("/dev/sdb", True),
        ("/dev/disk/by-id/usb-x", True),
        ("ssh://pi@board.local", False),
        ("pi@board", False),
        ("board", False),
        ("board.local", False),
        ("10.0.0.7", False),
    ],
)
def test_words_behind_to(to: str, card: bool) -> None:
    assert is_card(to) == card
    assert is_no_host(to) == card
    assert is_no_host("jetson-os")


def test_a_disk_is_prepared_written_and_read_back(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_tools()
    own_key(monkeypatch, tmp_path / "config")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    image = make_card(tmp_path / "raspios.img", raspberry_tree(tmp_path / "os"))
    before = hashlib.sha256(image.read_bytes()).digest()
    with loop_device(tmp_path / "disk", 160 * MB) as device:
        consent = Consent(lambda question: device.name)
        done = flash_card(release, enrolment_for(release), Card(device, consent, image), quiet)
        assert isinstance(done, Written)
        assert done.to_json()["disk"] == str(device)
        assert "it is safe to remove" in done.text()
    assert open_os_image(tmp_path / "disk").root.entry(f"{PLACE}/edgemask.release") is not None
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert not list(tmp_path.glob(".edgemask-*"))


def test_a_disk_is_not_touched_before_its_name_was_typed(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_key(monkeypatch, tmp_path / "config")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    (tmp_path / "raspios.img").write_bytes(b"not looked at")
    with loop_device(tmp_path / "disk", MB) as device:
        card = Card(device, Consent(lambda question: "yes"), tmp_path / "raspios.img")
        with pytest.raises(UserError, match="was not typed"):
            flash_card(release, enrolment_for(release), card, quiet)
    assert (tmp_path / "disk").read_bytes() == bytes(MB)


def test_what_belongs_to_the_other_kind_is_refused(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_key(monkeypatch, tmp_path / "config")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    image = tmp_path / "sd.img"
    for card, reason in (
        (Card(image, NOBODY, image=image), "--image is for disks"),
        (Card(image, NOBODY), "stays as it is"),
        (Card(Path("/dev/edgemask-none"), NOBODY), "say which operating system"),
        (Card(Path("/dev/edgemask-none"), NOBODY, image=image), "no such image"),
    ):
        with pytest.raises(UserError, match=reason):
            flash_card(release, enrolment_for(release), card, quiet)


def test_the_key_to_enrol_is_one_that_signed(make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = own_key(monkeypatch, tmp_path / "config")
    other = keygen("other")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    assert enrolment_for(release).key == key.public
    assert enrolment_for(release, key.path.with_suffix(".pub")).key == key.public
    with pytest.raises(UserError, match=rf"signed by {key.public.id}, not by the key in .*other\.pub"):
        enrolment_for(release, other.path.with_suffix(".pub"))


def test_a_release_of_somebody_else_is_told_where_keys_were_looked_for(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under sudo, where the folder of keys is root's."""
    key = own_key(monkeypatch, tmp_path / "config")
    release = signed_release(tmp_path / "tiny.release", make_bundle(), "release")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "roots"))
    monkeypatch.setenv("SUDO_USER", "me")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folder = tmp_path / "roots/edgemask/keys"
    with pytest.raises(
        UserError, match=f"signed by {key.public.id}; none of your keys in {folder} signed it"
    ) as caught:
        enrolment_for(release)
    assert "--enrol ~/.config/edgemask/keys/NAME.pub" in str(caught.value.hint)
    monkeypatch.delenv("SUDO_USER")
    with pytest.raises(UserError) as caught:
        enrolment_for(release)
    assert "from whoever made the release" in str(caught.value.hint)
    assert enrolment_for(release, key.path.with_suffix(".pub")).key == key.public


def test_a_development_key_is_for_ones_own_desk(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = development_key()
    release = signed_release(tmp_path / "tiny.release", make_bundle(), DEVELOPMENT)
    with pytest.raises(UserError, match="is signed by a development key") as caught:
        enrolment_for(release)
    assert "--allow-dev-key" in (caught.value.hint or "")
    assert enrolment_for(release, allow_development=True).key == key.public


def modules_of(target: str, folder: Path, bundle: Path, arch: str | None = None) -> list[Module]:
    """The modules for a release with that target's boards."""
    board = find_target(target)
    release = signed_release(
        folder / f"{target}-{arch}.release",
        bundle,
        "release",
        target=target,
        arch=arch or board.arch,
        boards=board.boards,
    )
    return modules_for(release.manifest)


def test_nvidias_commands_are_for_releases_that_run_on_a_jetson(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_key(monkeypatch, tmp_path / "config")
    bundle = make_bundle()
    for target, arch in (("raspberrypi", None), ("raspberrypi-5", None), ("host", "x86_64")):
        with pytest.raises(UserError, match=f"the release is for {target}, and runs on no Jetson") as caught:
            modules_of(target, tmp_path, bundle, arch)
        assert "--target jetson" in str(caught.value.hint)
    assert modules_of("arm64", tmp_path, bundle) == list(MODULES)
    assert modules_of("host", tmp_path, bundle, "aarch64") == list(MODULES)


def test_nvidias_commands_are_printed_for_the_module(
    make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_key(monkeypatch, tmp_path / "config")
    bundle = make_bundle()
    for module in MODULES:
        assert modules_of(module.target, tmp_path, bundle) == [module]
    assert modules_of("jetson", tmp_path, bundle) == list(MODULES)
    text = help_text([module for module in MODULES if module.target == "jetson-orin-nano"], "cabin-jetson.release")
    assert "sudo ./tools/kernel_flash/l4t_initrd_flash.sh --external-device nvme0n1p1" in text
    assert "jetson-orin-nano-devkit-super internal" in text
    assert "Jetson_Linux_R36.4.4_aarch64.tbz2" in text
    assert "edgemask flash cabin-jetson.release --to ssh://" in text
    assert "Jetson_Linux_R38.4.0_aarch64.tbz2" in help_text(MODULES, "x")
    values = json.loads(json.dumps(help_values(MODULES, "x.release")))
    assert [module["target"] for module in values["modules"]] == [module.target for module in MODULES]
    assert all(module["flash"] for module in values["modules"])


def test_yes_needs_the_disks_serial_number() -> None:
    assert agreed_serial(True, "X1") == "X1"
    assert agreed_serial(False, None) is None
    for yes, serial in ((True, None), (False, "X1")):
        with pytest.raises(UserError, match="come together"):
            agreed_serial(yes, serial)


def test_a_script_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(UserError, match="there is no terminal"):
            ask("Type sdb")


def test_options_of_cards_mean_nothing_to_hosts() -> None:
    check_for_hosts({"image": None, "in_place": False})
    with pytest.raises(UserError, match="--in-place is for images and disks"):
        check_for_hosts({"image": None, "in_place": True})


def edgemask(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgemask", "flash", *arguments]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_the_command_line(make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_tools()
    own_key(monkeypatch, tmp_path / "config")
    signed_release(tmp_path / "tiny.release", make_bundle(), "release", target="jetson-thor")
    make_card(tmp_path / "raspios.img", raspberry_tree(tmp_path / "os"))
    done = edgemask("tiny.release", "--to", "raspios.img", "--out", "sd.img", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == "sd.img"
    assert done.stderr.split() == ["unpack", "put", "in"]
    assert open_os_image(tmp_path / "sd.img").root.entry(f"{PLACE}/plan.json") is not None
    shown = edgemask("tiny.release", "--to", "jetson-os", folder=tmp_path)
    assert "sudo ./l4t_initrd_flash.sh jetson-agx-thor-devkit internal" in shown.stdout
    for arguments, reason in (
        (["--to", "raspios.img"], "stays as it is"),
        (["--to", "raspios.img", "--to", "board"], "one of them at a time"),
        (["--to", "board", "--out", "sd2.img"], "--out is for images and disks"),
        (["--to", "raspios.img", "--dry-run"], "--dry-run is for devices"),
        (["--to", "/dev/edgemask-none", "--yes"], "--yes and --disk-serial come together"),
    ):
        refused = edgemask("tiny.release", *arguments, folder=tmp_path)
        assert refused.returncode == 2
        assert reason in refused.stderr


def test_models_are_encrypted_by_a_device_that_runs_alone() -> None:
    done = CliRunner().invoke(app, ["flash", "x.release", "--to", "sd.img", "--encrypt-models"])
    assert isinstance(done.exception, UserError)
    assert "is for devices reached over ssh" in done.exception.message
