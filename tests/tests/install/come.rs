//! `fairlead install`.

use std::time::Duration;

use fairlead_tests::{Ended, Lab, Node, Probes, binary};

/// Where kubelet's kubeconfig is and what kubeadm writes into it.
const KUBELET: &str = "/etc/kubernetes/kubelet.conf";
const KUBECONFIG: &str = "{clusters: [{name: c, cluster: {server: 'https://172.18.0.11:6443'}}], contexts: [{name: x, context: \
                          {cluster: c, user: u}}], current-context: x, kind: Config, users: [{name: u, user: {token: secret}}]}";

pub(crate) fn write(node: &Node, path: &str, content: &str) {
    let command = format!("mkdir -p $(dirname {path}) && cat > {path}");
    let ended = node.run_with(&["sh", "-c", &command], &[], content);
    assert!(ended.ok(), "{ended:?}");
}

pub(crate) fn install(node: &Node, arguments: &[&str]) -> Ended {
    node.fairlead(&[&["install"], arguments].concat())
}

pub(crate) fn lab() -> Lab {
    let lab = Lab::builder().nodes(1).without_agents().start();
    write(lab.node("node-1"), KUBELET, KUBECONFIG);
    lab
}

#[test]
fn everything_is_in_place_and_a_second_time_changes_nothing() {
    let lab = lab();
    let node = lab.node("node-1");
    node.must_run(&["umount", "/sys/fs/bpf"]);
    node.must_run(&["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv4.ip_local_port_range=1024 60999"]);
    let first = install(node, &[]);
    assert!(first.ok(), "{first:?}");
    for words in ["mounted at /sys/fs/bpf", "https://172.18.0.11:6443", "/opt/cni/bin/fairlead-cni written", "MiB"] {
        assert!(first.stdout.contains(words), "{words} is missing: {}", first.stdout);
    }
    assert_eq!(node.must_run(&["stat", "-f", "-c", "%T", "/sys/fs/bpf"]).trim(), "bpf_fs");
    assert_eq!(node.must_run(&["cat", "/run/fairlead/apiserver"]), "https://172.18.0.11:6443\n");
    assert_eq!(node.must_run(&["sysctl", "-n", "net.ipv4.ip_forward"]).trim(), "1");
    assert_eq!(node.must_run(&["sysctl", "-n", "net.ipv4.ip_local_reserved_ports"]).trim(), "30000-32767");
    assert!(
        !first.stdout.contains("secret")
            && !node.must_run(&["sh", "-c", "cat $(find /run/fairlead -type f)"]).contains("secret")
    );
    let version =
        node.run_with(&["/opt/cni/bin/fairlead-cni"], &[("CNI_COMMAND", "VERSION")], r#"{"cniVersion": "1.1.0"}"#);
    assert!(version.ok(), "{version:?}");
    assert!(
        !node.run(&["sh", "-c", "ls /etc/cni/net.d | grep fairlead"]).ok(),
        "no configuration before an agent is ready"
    );

    let inode = || node.must_run(&["stat", "-c", "%i %y", "/opt/cni/bin/fairlead-cni", "/run/fairlead/sysctls"]);
    let before = inode();
    let second = install(node, &[]);
    assert!(second.ok() && second.stdout.contains("up to date"), "{second:?}");
    assert_eq!(inode(), before, "what is right is not touched");
}

/// A runtime executes the plugin at any moment. It finds one, whole, whichever version.
#[test]
fn c27_the_plugin_is_replaced_while_it_is_executed() {
    let lab = lab();
    let node = lab.node("node-1");
    assert!(install(node, &[]).ok());
    let plugin = binary("fairlead-cni").unwrap();
    let script = format!(
        "cp {plugin} /run/other && echo >> /run/other
         for n in $(seq 60); do
             if [ $((n % 2)) = 1 ]; then from=/run/other; else from={plugin}; fi
             {fairlead} install --cni-plugin $from >/dev/null || exit 3
         done; rm /run/other",
        plugin = plugin.display(),
        fairlead = binary("fairlead").unwrap().display(),
    );
    let installer = node.spawn("installer", &["sh", "-c", &script], &[]);
    let mut calls = 0;
    let ended = loop {
        let answer =
            node.run_with(&["/opt/cni/bin/fairlead-cni"], &[("CNI_COMMAND", "VERSION")], r#"{"cniVersion": "1.1.0"}"#);
        assert!(answer.ok(), "after {calls} calls: {answer:?}");
        calls += 1;
        if let Some(ended) = installer.wait(Duration::ZERO) {
            break ended;
        }
    };
    assert!(ended.contains('0'), "the installer ended with {ended}: {}", installer.log());
    assert!(calls > 20, "{calls} calls are too few to tell");
    assert_eq!(node.must_run(&["sh", "-c", "ls -A /opt/cni/bin | grep tmp || true"]), "", "nothing temporary is left");
}

#[test]
fn a_kubeconfig_that_is_missing_names_the_setting() {
    let lab = lab();
    let node = lab.node("node-1");
    node.must_run(&["rm", KUBELET]);
    let missing = install(node, &[]);
    assert!(!missing.ok(), "{missing:?}");
    for words in [KUBELET, "apiServer", "--kubelet-kubeconfig"] {
        assert!(missing.stdout.contains(words), "{words} is missing: {}", missing.stdout);
    }
    node.must_run(&["test", "-x", "/opt/cni/bin/fairlead-cni"]);
    for (content, words) in [("{{{", "not a kubeconfig"), ("{current-context: x}", "not among its contexts")] {
        write(node, KUBELET, content);
        let useless = install(node, &[]);
        assert!(!useless.ok() && useless.stdout.contains(words), "{useless:?}");
    }
    let set = install(node, &["--api-server", "https://192.0.2.1:6443"]);
    assert!(set.ok() && set.stdout.contains("https://192.0.2.1:6443"), "{set:?}");
    let nonsense = install(node, &["--api-server", "192.0.2.1"]);
    assert!(!nonsense.ok() && nonsense.stdout.contains("https://192.0.2.1:6443"), "{nonsense:?}");
}

/// What the agent's settings say holds for the installation, and what is wrong with them is found before the agent starts.
#[test]
fn settings_of_the_agent_hold_for_the_installation() {
    let lab = lab();
    let node = lab.node("node-1");
    let config = "/etc/fairlead/fairlead.yaml";
    write(node, config, "apiServer: https://192.0.2.7:6443\nprocSys: /proc/sys\ncni: {confDir: /etc/cni/net.d}\n");
    let set = install(node, &["--config", config]);
    assert!(set.ok() && set.stdout.contains("https://192.0.2.7:6443, from the settings"), "{set:?}");
    let flag = install(node, &["--config", config, "--api-server", "https://192.0.2.8:6443"]);
    assert!(flag.ok() && flag.stdout.contains("https://192.0.2.8:6443, from the settings"), "{flag:?}");

    write(node, config, "apiServr: https://192.0.2.7:6443\n");
    let wrong = install(node, &["--config", config]);
    assert!(!wrong.ok() && wrong.stderr.contains("apiServr") && wrong.stderr.contains("apiServer"), "{wrong:?}");
    let status = node.fairlead(&["status"]);
    assert!(!status.ok() && status.stderr.contains("apiServr"), "{status:?}");
    // Each of them is right, and there are more than the programs can be told.
    let many: Vec<String> = (1..10).map(|n| format!("192.0.2.{n}")).collect();
    write(
        node,
        config,
        &format!("apiServer: https://192.0.2.7:6443\nmetadata: {{addresses: [{}]}}\n", many.join(", ")),
    );
    let wrong = install(node, &["--config", config]);
    assert!(!wrong.ok() && wrong.stderr.contains("metadata.addresses has 9 addresses"), "{wrong:?}");
}

#[test]
fn c27_a_full_disk_tears_nothing() {
    let lab = lab();
    let node = lab.node("node-1");
    assert!(install(node, &[]).ok());
    let whole = node.must_run(&["sha256sum", "/opt/cni/bin/fairlead-cni"]);
    // A disk for plugins that has room for the one that is there, and little more.
    let script = "mkdir /run/disk && mount -t tmpfs -o size=$(( ($(stat -c %s /opt/cni/bin/fairlead-cni) >> 10) + 512 ))k none /run/disk && \
                  cp -a /opt/cni/bin/fairlead-cni /run/disk/ && \
                  cp /opt/cni/bin/fairlead-cni /run/other && echo >> /run/other";
    node.must_run(&["sh", "-c", script]);
    let full = install(node, &["--cni-bin-dir", "/run/disk", "--cni-plugin", "/run/other"]);
    assert!(!full.ok(), "{full:?}");
    for words in ["/run/disk/fairlead-cni", "No space left", "df -h"] {
        assert!(full.stdout.contains(words), "{words} is missing: {}", full.stdout);
    }
    assert_eq!(node.must_run(&["ls", "-A", "/run/disk"]).trim(), "fairlead-cni", "nothing half is left");
    assert_eq!(node.must_run(&["sha256sum", "/run/disk/fairlead-cni"]).split(' ').next(), whole.split(' ').next());

    node.must_run(&[
        "sh",
        "-c",
        "mkdir -p /run/full && mount -t tmpfs -o size=4k none /run/full && head -c 4096 /dev/zero > /run/full/x",
    ]);
    let full = install(node, &["--run-dir", "/run/full/fairlead"]);
    assert!(!full.ok() && full.stdout.contains("No space left"), "{full:?}");
    assert!(!node.run(&["test", "-e", "/run/full/fairlead/apiserver"]).ok());
    // A run directory that is full does not keep the agent from serving: it says what is wrong and ends.
    let process = node.launch_agent_with(&["--run-dir", "/run/full/fairlead"]);
    lab.wait_until("the agent says what is wrong", || match process.log() {
        log if log.contains("No space left") => Ok(()),
        log => Err(log),
    });
}
