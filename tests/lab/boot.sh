#!/bin/sh
# boot.sh LAYERS DISK CGROUP: becomes the init of a machine whose root is LAYERS ("upper:lower") under
# what DISK has. Its network namespace is the caller's; every other one is its own.
#
# As systemd-nspawn does, it leaves of /proc/sys only the network writable, gives each boot an id of
# its own, and shows nothing of the host's devices. All mounts go when the machine ends.
set -eu

if [ $# -eq 3 ]; then
    echo $$ >"$3/cgroup.procs"
    exec unshare --mount --pid --uts --ipc --cgroup --kill-child "$0" "$1" "$2"
fi

layers=$1 disk=$2 root=$2/root
mount --make-rprivate /
mkdir -p "$root" "$disk/changes" "$disk/work"
directories="lowerdir=$layers,upperdir=$disk/changes,workdir=$disk/work"
if [ -e "$root/etc" ] || ! mount -t overlay -o "$directories" overlay "$root"; then
    # The file system under DISK may be an overlay itself, as in a container: then LAYERS is one.
    [ -e "$root/etc" ] || cp -a "$layers/." "$root"
    mount --bind "$root" "$root"
fi

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
cat /proc/sys/kernel/random/uuid >"$root/run/boot_id"
mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"

exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --show-status=0
