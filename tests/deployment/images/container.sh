#!/usr/bin/env bash
# A container out of Linux's own tools: container.sh ROOT USER FOLDER:PATH[:ro]... -- COMMAND...
# Called by `unshare --mount --pid --fork`. The root is read-only, no capability is left, /tmp and /dev/shm are in memory.
set -euo pipefail
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind -o ro /sys "$root/sys"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmp "$root/tmp"
mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
while [ "$1" != -- ]; do
    IFS=: read -r folder path mode <<<"$1"
    mount --bind -o "${mode:-rw}" "$folder" "$root$path"
    shift
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all -- "$@"
