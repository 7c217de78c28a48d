#!/bin/sh
# What the emulated board needs of this machine: installed when we are root on Debian or Ubuntu, named otherwise.
set -eu
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
PATH="$PATH:/usr/sbin:/sbin"
need qemu-system-aarch64 qemu-system-arm
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need qemu-aarch64-static qemu-user-static
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need busybox busybox-static
need genimage genimage
need mcopy mtools
need mkfs.vfat dosfstools
need cpio cpio
need depmod kmod
need ssh openssh-client
need setpriv util-linux
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the board:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "error: the emulated board needs: sudo apt-get install$missing" >&2
    exit 2
fi
