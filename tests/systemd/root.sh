#!/bin/bash
# Pid 1 of new namespaces: root.sh UNITS RESULTS. The machine's root is seen through an overlay in memory, so systemd
# and its services change nothing of it; RESULTS alone is shared. Becomes systemd, which starts drive.service.
set -e
units=$1 results=$2
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
for folder in run tmp; do mount -t tmpfs tmpfs "$folder"; done
mount -t tmpfs -o mode=755 tmpfs dev # not sticky: the kernel lets nobody create what is there and another user's
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
mkdir dev/shm dev/pts run/lock results
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mount --bind "$(tty)" dev/console # systemd's own messages go to the pseudo-terminal that script(1) gives us
mount -t tmpfs tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mount --bind "$results" results
# Only what is in UNITS is started.
rm -rf etc/systemd/system/*.wants lib/systemd/system/*.wants etc/rc?.d
cp "$units"/*.service "$units"/*.socket etc/systemd/system/
cp -r "$units"/app srv/app
cp "$units"/drive.sh root/
ip link set lo up
pivot_root . mnt
umount -l /mnt
export container=lxc
exec /lib/systemd/systemd --system --unit=drive.service --log-target=console --show-status=0
