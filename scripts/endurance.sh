#!/usr/bin/env bash
# Ten minutes, or so many as are named, of everything at once against the real daemon: chat, joins, fetches, files,
# reconnects, slow readers and enemies, under kill -9, a disk that is full or fails, a clock that jumps and storms
# of SIGHUP. Prints what was done and what the daemon held after each minute, and fails where anything that was
# acknowledged is not there, in order, once. tests/endurance.rs is the whole of it, and its short form.
#
#   scripts/endurance.sh [MINUTES]
#
# Installs strace and libfaketime from Debian where they are missing. As root, and where that is allowed, the data
# lies on a small filesystem of its own, which is filled to the last byte now and then. Ends by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-10}
[[ $minutes =~ ^[1-9][0-9]{0,3}$ ]] || { echo "usage: scripts/endurance.sh [MINUTES]" >&2; exit 2; }
# Room for the messages of so many minutes, twice.
disk_mib=$((512 + minutes * 64))

scripts/test.sh packages
cargo test --locked --test endurance --no-run

work=$(mktemp -d)
finish() {
    if mountpoint -q "$work/disk"; then umount "$work/disk"; fi
    rm -rf "$work"
}
trap finish EXIT
mkdir "$work/disk"
if [ "$(id -u)" -eq 0 ]; then
    truncate -s "${disk_mib}M" "$work/image"
    if mkfs.ext4 -q -m 0 "$work/image" && mount -o loop "$work/image" "$work/disk" 2>/dev/null; then
        echo "the data lies on a filesystem of $disk_mib MiB"
    elif mount -t tmpfs -o "size=${disk_mib}m" downstream-endurance "$work/disk" 2>/dev/null; then
        echo "the data lies in memory, on a filesystem of $disk_mib MiB"
    fi
fi
if mountpoint -q "$work/disk"; then
    export ENDURANCE_DISK="$work/disk" TMPDIR="$work/disk"
else
    echo "note: no filesystem can be mounted here; a full disk is a limit on the length of files"
fi
# What ends it where it hangs: every wait inside has an end of its own.
ENDURANCE_MINUTES=$minutes timeout --kill-after=10 $((minutes * 60 + 600)) \
    cargo test --quiet --locked --test endurance -- everything_at_once --exact --nocapture
