//! `fairlead uninstall`.

use fairlead_tests::{Pod, Probes, binary};

use crate::come::{install, lab};
use crate::snapshot::Snapshot;

#[test]
fn c30_a_node_is_given_back_as_it_was() {
    let lab = lab();
    let node = lab.node("node-1");
    node.must_run(&[
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=0",
        "net.ipv6.conf.all.forwarding=0",
        "net.ipv6.conf.eth0.accept_ra=1",
        "net.ipv4.conf.all.accept_redirects=0",
        "net.ipv4.conf.eth0.rp_filter=1",
        "net.ipv4.ip_local_port_range=1024 60999",
    ]);
    node.must_run(&[
        "sh",
        "-c",
        "mkdir -p /etc/cni/net.d /opt/cni/bin && echo other > /etc/cni/net.d/87-other.conflist",
    ]);
    let before = Snapshot::of(node);

    assert!(install(node, &[]).ok());
    node.start_agent();
    let pods: Vec<_> = ["leave/one", "leave/two"].iter().map(|key| node.pod(key).tcp(80).start()).collect();
    for ip in pods.iter().flat_map(Pod::ips) {
        node.tcp(ip, 80).unwrap();
    }
    lab.wait_until("the configuration appears", || {
        let ended = node.run(&["test", "-e", "/etc/cni/net.d/10-fairlead.conflist"]);
        if ended.ok() { Ok(()) } else { Err(ended) }
    });
    let refused = node.fairlead(&["uninstall"]);
    assert!(!refused.ok() && refused.stderr.contains("stop it first"), "{refused:?}");
    node.agent().kill9();

    let done = node.fairlead(&["uninstall"]);
    assert!(done.ok(), "{done:?}");
    before.assert_same(&Snapshot::of(node));
    assert!(!node.run(&["ls", "/run/fairlead"]).ok());
    let again = node.fairlead(&["uninstall"]);
    assert!(again.ok() && again.stdout.contains("not present"), "{again:?}");
    drop(pods);
}

/// As in a cluster: from a container that has the node's directories elsewhere.
#[test]
fn a_container_with_the_nodes_directories_elsewhere_does_the_same() {
    let lab = lab();
    let node = lab.node("node-1");
    let before = Snapshot::of(node);
    let fairlead = binary("fairlead").unwrap();
    let mounts = "mkdir -p /run/host && for dir in etc/cni/net.d opt/cni/bin etc/kubernetes proc/sys/net; do
                  mkdir -p /$dir /run/host/$dir && mount --bind /$dir /run/host/$dir || exit 1; done;";
    let run = |command: &str| {
        let script = format!("{mounts} exec {} {command} --host-root /run/host", fairlead.display());
        node.run(&["unshare", "-m", "sh", "-c", &script])
    };
    let installed = run("install");
    assert!(installed.ok(), "{installed:?}");
    assert!(installed.stdout.contains("/run/host/opt/cni/bin/fairlead-cni written"), "{}", installed.stdout);
    assert!(node.run(&["test", "-x", "/opt/cni/bin/fairlead-cni"]).ok());
    node.start_agent();
    let pod = node.pod("leave/pod").start();
    lab.wait_until("the configuration appears", || {
        let ended = node.run(&["test", "-e", "/etc/cni/net.d/10-fairlead.conflist"]);
        if ended.ok() { Ok(()) } else { Err(ended) }
    });
    assert!(!run("uninstall").ok(), "an agent runs");
    node.agent().stop();
    let done = run("uninstall");
    assert!(done.ok(), "{done:?}");
    node.must_run(&["rmdir", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni", "/opt/cni"]);
    before.assert_same(&Snapshot::of(node));
    drop(pod);
}

/// What can't be removed keeps nothing else, and the command fails.
#[test]
fn c30_every_error_is_said_and_the_rest_is_done() {
    let lab = lab();
    let node = lab.node("node-1");
    assert!(install(node, &[]).ok());
    node.start_agent();
    let _pod = node.pod("leave/pod").start();
    node.agent().kill9();
    node.must_run(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    node.must_run(&["sh", "-c", "mount --bind /opt/cni/bin /opt/cni/bin && mount -o remount,bind,ro /opt/cni/bin"]);
    let ended = node.fairlead(&["uninstall"]);
    assert!(!ended.ok() && ended.stderr.contains("failed"), "{ended:?}");
    assert!(ended.stdout.contains("/opt/cni/bin/fairlead-cni: Read-only"), "{}", ended.stdout);
    assert!(!node.must_run(&["ip", "link"]).contains(" fl"), "links are gone all the same");
    assert!(!node.run(&["ls", "/sys/fs/bpf/fairlead"]).ok());
}
