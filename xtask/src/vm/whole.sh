# What a guest begins with that has the files of the machine around it: the mounts that every machine has. SCRATCH are folders
# in its memory, for what can't be written to those files; RESULTS is a folder of that machine.
set -e
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "$SCRATCH"
mount -t tmpfs -o size=75% tmpfs "$SCRATCH"
mount -t virtiofs results "$RESULTS"
