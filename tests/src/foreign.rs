//! A machine that has networks of its own: tests run on it again, and must find the same.
//!
//! It is this machine in a mount namespace of its own, in which the directories that others write to are copies or empty.

use std::path::Path;
use std::process::{Command, ExitStatus};

/// Set on the foreign machine.
const HERE: &str = "FAIRLEAD_FOREIGN_MACHINE";

/// The name of files that nobody on a node may see.
pub const FOREIGN: &str = "87-foreign.conflist";

/// Directories with such a file.
pub const PLACES: [&str; 8] = [
    "/etc/cni/net.d",
    "/etc/fairlead",
    "/etc/kubernetes",
    "/opt/cni/bin",
    "/run/fairlead",
    "/run/systemd/netif/links",
    "/var/lib/cni",
    "/var/lib/kubelet",
];

/// Makes the machine and runs this program with its arguments. A directory that the program itself is in stays as it is.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /run
for dir in etc opt var/lib; do
    case $0 in /$dir/*) continue ;; esac
    mkdir -p /run/machine/$dir
    [ $dir != etc ] || cp -a /etc/. /run/machine/etc/
    mount --bind /run/machine/$dir /$dir
done
for dir in usr/lib/systemd/network usr/lib/NetworkManager/conf.d; do
    [ ! -d /$dir ] || mount -t tmpfs none /$dir
done
for place in $PLACES; do
    mkdir -p $place
    echo '{"foreign": true}' >$place/$FILE
done
# Another cluster's, with names that tests use too.
echo '{"name": "foreign", "plugins": []}' >/etc/cni/net.d/05-cilium.conflist
printf '#!/bin/sh\necho foreign; exit 1\n' >/opt/cni/bin/fairlead-cni
chmod +x /opt/cni/bin/fairlead-cni
echo 'apiServer: https://192.0.2.1:6443' >/etc/fairlead/fairlead.yaml
echo 'clusters: []' >/etc/kubernetes/kubelet.conf
echo https://192.0.2.1:6443 >/run/fairlead/apiserver
mkdir -p /run/NetworkManager /run/systemd/resolve /run/netns /etc/NetworkManager/conf.d /etc/systemd/network
echo 'nameserver 192.0.2.1 # foreign' >/run/systemd/resolve/stub-resolv.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
for dir in /etc/systemd/network /usr/lib/systemd/network; do
    [ ! -d $dir ] || printf '[Match]\nName=*\n[Network]\nDHCP=yes\n' >$dir/10-foreign.network
done
for dir in /etc/NetworkManager/conf.d /usr/lib/NetworkManager/conf.d; do
    [ ! -d $dir ] || printf '[keyfile]\nunmanaged-devices=interface-name:fl*\n' >$dir/10-foreign.conf
done
# No cgroups where they are usually, and version 2 where nobody has it.
umount --recursive --lazy /sys/fs/cgroup 2>/dev/null || true
mkdir /run/cgroups
mount -t cgroup2 none /run/cgroups
umask 077
exec "$0" "$@"
"#;

/// Whether this process is on the foreign machine.
#[must_use]
pub fn is_here() -> bool {
    std::env::var_os(HERE).is_some()
}

/// Runs a program on the foreign machine.
///
/// # Panics
/// When the machine can't be made.
#[must_use]
pub fn run(program: &Path, arguments: &[&str]) -> ExitStatus {
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
        .arg(program)
        .args(arguments)
        .env("PLACES", PLACES.join(" "))
        .env("FILE", FOREIGN)
        .env(HERE, "1")
        // As in a pod of another cluster, behind a proxy.
        .envs([("KUBERNETES_SERVICE_HOST", "192.0.2.1"), ("KUBERNETES_SERVICE_PORT", "6443"), ("NODE_NAME", "foreign")])
        .envs([("HTTPS_PROXY", "http://192.0.2.1:3128"), ("RUST_LOG", "error"), ("FAIRLEAD_OBJECTS", "/nowhere")])
        .status()
        .expect("the machine needs `unshare` of util-linux")
}
