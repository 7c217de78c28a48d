"""A release put into an image, read back by other programs than those that wrote it where there are any."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgemask.device.first_start import PLACE, UNIT, Wishes, boot_files
from edgemask.device.image import prepare, target_of
from edgemask.device.os_image import open_os_image
from edgemask.device.unpacking import unpack
from edgemask.errors import UserError
from edgemask_runtime.release import Release

from .cards import ARM, MB, PLACES, make_card, needs_tools, raspberry_tree
from .prepared import RUNTIME, enrolled, own_key, signed_release

KEY_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGr5dEP6T7pDQ3PvxzTMd5qCzK3wWlqQpYkhZmYzOQxu me@pc"

OWN = """schema = 1
[http]
listen = "127.0.0.1:8700"
[[models]]
name = "tiny"
bundle = "/opt/edgemask/current/models/tiny.edgemask"
"""


def quiet(step: str, done: int, of: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_tools()
    folder = tmp_path_factory.mktemp("card")
    return make_card(folder / "sd.img", raspberry_tree(folder / "tree"))


@pytest.fixture
def release(make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    key = own_key(monkeypatch, tmp_path / "config")
    return signed_release(tmp_path / "tiny-host.release", make_bundle(), key.name, runtime=b"\x00wheel" * 1000)


def put(card: Path, release: Release, target: Path, wishes: Wishes | None = None) -> Path:
    return prepare(release, enrolled(release), card, target, wishes or Wishes(), quiet).image


def extracted(image: Path, folder: Path) -> Path:
    """The system partition's files, by 7z where there is one, else by debugfs' rdump."""
    part = folder / "root.ext4"
    with image.open("rb") as file, part.open("wb") as to:
        file.seek(44 * MB)
        to.write(file.read(80 * MB))
    tree = folder / "tree"
    tree.mkdir()
    debugfs = shutil.which("debugfs", path=PLACES) or "debugfs"
    subprocess.run([debugfs, "-R", f"rdump / {tree}", str(part)], capture_output=True, check=True)
    e2fsck = shutil.which("e2fsck", path=PLACES) or "e2fsck"
    subprocess.run([e2fsck, "-fn", str(part)], capture_output=True, check=True)
    return tree


def on_boot(image: Path, name: str) -> bytes:
    return subprocess.run(["mcopy", "-i", f"{image}@@4M", f"::{name}", "-"], capture_output=True, check=True).stdout


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_everything_is_in_the_image(card: Path, release: Release, tmp_path: Path) -> None:
    before = digest(card)
    made = put(card, release, tmp_path / "out.img")
    tree = extracted(made, tmp_path)
    place = tree / PLACE.lstrip("/")
    assert digest(place / "edgemask.release") == digest(release.path)
    assert (place / Path(RUNTIME).name).read_bytes() == release.read(RUNTIME)
    plan = json.loads((place / "plan.json").read_text())
    assert plan["install"] == ["edgemask.release", "--sha256", digest(release.path), "--enrol", "enrol.pub"]
    link = tree / "etc/systemd/system/multi-user.target.wants" / UNIT
    assert link.readlink() == Path(f"../{UNIT}")
    assert f"{PLACE}/{Path(RUNTIME).name}" in link.read_text()
    assert (tree / "etc/systemd/system/multi-user.target.wants/cron.service").exists()
    assert b"first start" in on_boot(made, "edgemask-first-boot.txt")
    assert digest(card) == before
    assert (tree / "etc/hostname").read_text() == "raspberrypi\n"


def test_the_owners_wishes_are_in_it(card: Path, release: Release, tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(KEY_LINE + "\n")
    (tmp_path / "own.toml").write_text(OWN)
    wishes = Wishes("camera-1", "me", tmp_path / "id.pub", tmp_path / "own.toml")
    made = put(card, release, tmp_path / "out.img", wishes)
    tree = extracted(made, tmp_path)
    assert (tree / "etc/hostname").read_text() == "camera-1\n"
    hosts = (tree / "etc/hosts").read_text().splitlines()
    assert hosts == ["127.0.0.1\tlocalhost", "::1\t\tlocalhost", "127.0.1.1\tcamera-1"]
    assert (tree / "home/pi/.ssh/authorized_keys").read_text() == KEY_LINE + "\n"
    assert (tree / "etc/sudoers.d/010-edgemask").read_text() == "me ALL=(ALL) NOPASSWD: ALL\n"
    assert (tree / "etc/edgemask/edgemaskd.toml").read_text() == OWN
    assert on_boot(made, "userconf.txt") == b"me:*\n"
    assert on_boot(made, "ssh") == b""
    root = open_os_image(made).root
    rights = {
        "/home/pi/.ssh": ("directory", 0o700, 1000),
        "/home/pi/.ssh/authorized_keys": ("regular", 0o600, 1000),
        "/etc/sudoers.d/010-edgemask": ("regular", 0o440, 0),
        f"{PLACE}/edgemask.release": ("regular", 0o600, 0),
    }
    for path, wanted in rights.items():
        entry = root.entry(path)
        assert entry is not None
        assert (entry.kind, entry.mode, entry.owner) == wanted


def test_a_second_release_replaces_the_first(card: Path, release: Release, tmp_path: Path, make_bundle: Any) -> None:
    first = put(card, release, tmp_path / "out.img")
    newer = signed_release(tmp_path / "newer.release", make_bundle(), "release", serial=4, runtime=b"another wheel")
    link = tmp_path / "link.img"
    link.symlink_to(first)
    first.chmod(0o640)
    prepare(newer, enrolled(newer), link, target_of(link, None, True), Wishes(hostname="second"), quiet)
    assert link.readlink() == first
    assert first.stat().st_mode & 0o777 == 0o640
    tree = extracted(first, tmp_path)
    assert digest(tree / PLACE.lstrip("/") / "edgemask.release") == digest(newer.path)
    assert (tree / "etc/hostname").read_text() == "second\n"


def test_an_image_of_a_board_in_use_is_refused(release: Release, tmp_path: Path) -> None:
    """Its first start would do nothing: a release is installed already."""
    needs_tools()
    tree = raspberry_tree(tmp_path / "os")
    (tree / "opt/edgemask").mkdir(parents=True)
    (tree / "opt/edgemask/state.json").write_text("{}")
    with pytest.raises(UserError, match="Edgemask is installed in it already"):
        put(make_card(tmp_path / "sd.img", tree), release, tmp_path / "out.img")
    assert not (tmp_path / "out.img").exists()


def test_gpt_is_as_good(release: Release, tmp_path: Path) -> None:
    needs_tools()
    card = make_card(tmp_path / "sd.img", raspberry_tree(tmp_path / "os", python="3.13", glibc="2.41"), table="gpt")
    tree = extracted(put(card, release, tmp_path / "out.img"), tmp_path)
    assert (tree / PLACE.lstrip("/") / "plan.json").exists()


def test_odd_names_are_no_options(card: Path, release: Release, tmp_path: Path) -> None:
    odd = tmp_path / "a b?offset=7@@9.img"
    made = put(card, release, odd)
    assert open_os_image(made).python == "3.11"


def test_a_missing_tool_names_its_package(
    card: Path, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(UserError, match="mdir is missing") as caught:
        put(card, release, tmp_path / "out.img")
    assert caught.value.hint == "install it: sudo apt install mtools"


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "32-bit": ({"machine": ARM}, {}, r"is 32-bit \(armv7l\)"),
    "python": ({"python": "3.9"}, {}, r"for Python 3\.11, 3\.13, the image has 3\.9"),
    "glibc": ({"glibc": "2.19"}, {}, r"needs glibc 2\.28, the image has 2\.19"),
    "jetson": ({}, {"boards": ("nvidia,p3768-0000+p3767-0005",)}, "it is for nvidia,"),
    "arch": ({}, {"arch": "x86_64"}, "it is for x86_64, the image for aarch64"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_cannot_run_there_is_refused(case: str, make_bundle: Any, tmp_path: Path, request: Any) -> None:
    needs_tools()
    system, changes, reason = OTHERS[case]
    card = make_card(tmp_path / "sd.img", raspberry_tree(tmp_path / "os", **system))
    own_key(request.getfixturevalue("monkeypatch"), tmp_path / "config")
    release = signed_release(tmp_path / "x.release", make_bundle(), "release", **changes)
    with pytest.raises(UserError, match=reason) as caught:
        put(card, release, tmp_path / "out.img")
    assert str(card) in caught.value.message
    assert not list(tmp_path.glob("*out.img*"))


def altered_system(tmp_path: Path, remove: str) -> Path:
    tree = raspberry_tree(tmp_path / "os")
    (tree / remove).unlink()
    return make_card(tmp_path / "sd.img", tree)


@pytest.mark.parametrize(
    ("remove", "reason"),
    [
        ("etc/rpi-issue", r"holds Debian GNU/Linux 12 \(bookworm\), not Raspberry Pi OS"),
        ("usr/bin/python3", "has no /usr/bin/python3"),
        ("usr/lib/os-release", "1 boot partitions .* and 0 partitions with a system"),
        ("usr/lib/aarch64-linux-gnu/libc.so.6", "C library tells no version"),
    ],
)
def test_another_system_is_refused(remove: str, reason: str, tmp_path: Path) -> None:
    needs_tools()
    with pytest.raises(UserError, match=reason):
        open_os_image(altered_system(tmp_path, remove))


def test_a_damaged_system_is_refused(card: Path, release: Release, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.img"
    shutil.copy(card, damaged)
    with damaged.open("r+b") as file:
        file.seek(44 * MB + 4096 + 12)
        file.write(b"\xff\xff")
    before = digest(damaged)
    with pytest.raises(UserError, match="its system partition is not sound") as caught:
        put(damaged, release, target_of(damaged, None, True))
    assert str(damaged) in caught.value.message
    assert digest(damaged) == before


def test_a_full_system_is_refused_before_anything_is_written(
    release: Release, tmp_path: Path, make_bundle: Any
) -> None:
    needs_tools()
    tree = raspberry_tree(tmp_path / "os")
    (tree / "filler").write_bytes(b"x" * 60 * MB)
    card = make_card(tmp_path / "sd.img", tree)
    with pytest.raises(UserError, match=r"its system partition has \d+ MB free, \d+ MB are needed"):
        put(card, release, tmp_path / "out.img")


def test_where_it_goes_must_be_said(tmp_path: Path) -> None:
    image, packed = tmp_path / "raspios.img", tmp_path / "raspios.img.xz"
    image.write_bytes(b"image")
    packed.write_bytes(lzma.compress(b"image"))
    with pytest.raises(UserError, match="stays as it is") as caught:
        target_of(packed, None, False)
    assert f"--out {tmp_path / 'raspios-edgemask.img'}" in (caught.value.hint or "")
    with pytest.raises(UserError, match="exclude each other"):
        target_of(image, tmp_path / "out", True)
    with pytest.raises(UserError, match="cannot be changed in place"):
        target_of(packed, None, True)
    with pytest.raises(UserError, match="is there already"):
        target_of(packed, image, False)
    assert target_of(image, None, True) == image


def packed_as(kind: str, content: bytes, path: Path) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("notes.txt", "not this")
            archive.writestr("raspios.img", content)
    else:
        path.write_bytes({"xz": lzma.compress, "gz": gzip.compress, "none": bytes}[kind](content))
    return path


@pytest.mark.parametrize("kind", ["xz", "gz", "zip", "none"])
def test_packed_images_come_out_whole(kind: str, tmp_path: Path) -> None:
    content = bytes(3 * MB) + b"middle" * 700_000 + bytes(2 * MB + 17)
    packed, told = packed_as(kind, content, tmp_path / "packed"), []
    with (tmp_path / "out").open("w+b") as to:
        unpack(packed, to, lambda *step: told.append(step))
    assert (tmp_path / "out").read_bytes() == content
    assert told[-1] == ("unpack", packed.stat().st_size, packed.stat().st_size)


@pytest.mark.parametrize("kind", ["xz", "gz", "zip"])
def test_broken_packed_images_are_refused(kind: str, tmp_path: Path) -> None:
    packed = packed_as(kind, b"content" * 99_999, tmp_path / "packed")
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(UserError, match="is broken"), (tmp_path / "out").open("w+b") as to:
        unpack(packed, to, quiet)


def test_wishes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    key, private = tmp_path / "id.pub", tmp_path / "id"
    key.write_text(KEY_LINE)
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
    for wishes, reason in (
        (Wishes(hostname="Camera_1"), "--hostname 'Camera_1'"),
        (Wishes(user="me"), "come together"),
        (Wishes(ssh_key=key), "come together"),
        (Wishes(user="root", ssh_key=key), "--user 'root'"),
        (Wishes(user="me", ssh_key=private), "is a private key"),
        (Wishes(user="me", ssh_key=tmp_path / "none"), "cannot read a public key"),
    ):
        with pytest.raises(UserError, match=reason):
            wishes.check()
    assert "userconf.txt" not in boot_files(Wishes(hostname="camera"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OWN.replace("/opt/edgemask/current/", ""), r"bundle: value 'models/tiny.edgemask'; allowed: a whole path"),
        (OWN.replace("tiny.edgemask", "other.edgemask"), "other.edgemask"),
        (OWN.replace("schema = 1", "schema = 1\nmodel = 1"), "model"),
        ("schema = ", "own.toml"),
    ],
)
def test_settings_that_no_daemon_would_start_with_are_refused(
    text: str, reason: str, card: Path, release: Release, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        put(card, release, tmp_path / "out.img", Wishes(settings=tmp_path / "own.toml"))
    assert str(tmp_path / "own.toml") in caught.value.message
    assert not (tmp_path / "out.img").exists()


@pytest.mark.parametrize("name", ["www-data", "video"])
def test_an_account_of_the_system_gets_no_sudo(name: str, card: Path, release: Release, tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(KEY_LINE)
    with pytest.raises(UserError, match=f"--user {name}: .* has an account or a group of that name"):
        put(card, release, tmp_path / "out.img", Wishes(user=name, ssh_key=tmp_path / "id.pub"))
    assert not (tmp_path / "out.img").exists()


def test_the_first_user_may_keep_the_name(card: Path, release: Release, tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(KEY_LINE)
    made = put(card, release, tmp_path / "out.img", Wishes(user="pi", ssh_key=tmp_path / "id.pub"))
    assert on_boot(made, "userconf.txt") == b"pi:*\n"


def test_a_user_whom_the_image_keeps_out_is_refused(release: Release, tmp_path: Path) -> None:
    needs_tools()
    card = make_card(tmp_path / "sd.img", raspberry_tree(tmp_path / "os", shell="/usr/sbin/nologin"))
    (tmp_path / "id.pub").write_text(KEY_LINE)
    with pytest.raises(UserError, match="lets pi in under another name only"):
        put(card, release, tmp_path / "out.img", Wishes(user="pi", ssh_key=tmp_path / "id.pub"))
