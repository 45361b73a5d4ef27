//! `fairlead doctor`, on nodes on which something is wrong.

use fairlead_tests::{Lab, Node, Probes, binary};
use serde_json::Value;

use crate::come::write;

/// What it says: exit code, and findings as (severity, all words).
pub(crate) fn doctor(node: &Node, arguments: &[&str]) -> (bool, Vec<(String, String)>, Value) {
    let ended = node.fairlead(&[&["doctor", "-o", "json"], arguments].concat());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.map(|f| (text(&f["severity"]), [&f["what"], &f["remedy"]].map(text).join(" | "))).collect();
    (ended.ok(), findings, report)
}

#[track_caller]
pub(crate) fn finds(findings: &[(String, String)], severity: &str, words: &[&str]) {
    let found = findings.iter().any(|(s, text)| s == severity && words.iter().all(|word| text.contains(word)));
    assert!(found, "no {severity} with {words:?} in {findings:#?}");
}

#[test]
fn a_running_node_has_nothing_that_stops_it_but_the_api_server() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    node.fairlead(&["install"]);
    lab.wait_until("nothing is wrong with the node", || {
        let (_, findings, report) = doctor(node, &[]);
        match findings.is_empty() {
            true => Ok(()),
            false => Err(report),
        }
    });
    let (ok, findings, report) = doctor(node, &[]);
    assert!(ok, "{findings:?}");
    assert!(report["unseen"].to_string().contains("apiServer"), "no kubeconfig, no address: {report}");
    assert!(report["without"].to_string().contains("fq as root qdisc at eth0"), "a veth has no queue: {report}");
    let text = node.fairlead(&["doctor"]);
    assert!(text.ok() && text.stdout.contains("no problems found"), "{text:?}");

    write(node, "/run/fairlead/apiserver", "https://127.0.0.1:1\n");
    let (ok, findings, _) = doctor(node, &[]);
    assert!(!ok);
    finds(&findings, "blocks", &["https://127.0.0.1:1", "refused", "apiServer"]);
    // Something that listens and is no API server.
    node.serve("impostor", &[6443], &[]);
    let (_, findings, _) = doctor(node, &["--api-server", "https://127.0.0.1:6443"]);
    finds(&findings, "blocks", &["https://127.0.0.1:6443"]);
    let (_, findings, _) = doctor(node, &["--api-server", "https://172.18.0.99:6443"]);
    finds(&findings, "blocks", &["172.18.0.99"]);
}

/// The agent knows the addresses of the Node object and the settings.
#[test]
fn without_a_default_route_uplinks_are_those_of_the_agent_or_not_known() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    for family in ["-4", "-6"] {
        node.must_run(&["ip", family, "route", "del", "default"]);
    }
    let no_uplink = |findings: &[(String, String)]| findings.iter().any(|(_, text)| text.contains("no uplink found"));
    // Its socket is there before its first look at the node.
    let report = lab.wait_until("the agent has found its uplinks", || {
        let (_, findings, report) = doctor(node, &[]);
        if no_uplink(&findings) { Err(findings) } else { Ok(report) }
    });
    assert!(report["without"].to_string().contains("fq as root qdisc at eth0"), "{report}");

    node.agent().stop();
    let (_, findings, report) = doctor(node, &[]);
    assert!(!no_uplink(&findings), "{findings:#?}");
    assert!(report["unseen"].to_string().contains("no interface has a default route"), "{report}");

    // Settings that leave no uplink are the agent's finding.
    node.launch_agent_with(&["--exclude-uplinks=*"]).wait_ready();
    let (_, findings, _) = doctor(node, &[]);
    finds(&findings, "blocks", &["no uplink found", "`excludeUplinks`"]);
}

#[test]
fn leftovers_and_neighbours_are_found_and_the_agent_says_so_too() {
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    let _installed = node.fairlead(&["install"]);
    node.must_run(&["sh", "-c", "mkdir -p /etc/cni/net.d && echo '{}' >/etc/cni/net.d/05-cilium.conflist"]);
    let script = "add table ip kube-proxy
        add chain ip kube-proxy services
        add table ip nat
        add chain ip nat KUBE-SERVICES
        add chain ip nat KUBE-KUBELET-CANARY
        add table ip filter
        add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    let nft = node.run_with(&["nft", "-f", "-"], &[], script);
    assert!(nft.ok(), "{nft:?}");
    node.must_run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.ip_forward=0"]);
    node.must_run(&["ip", "link", "add", "wide0", "mtu", "9000", "type", "veth", "peer", "name", "wide1"]);
    node.must_run(&[
        "sh",
        "-c",
        "ip link set wide1 up && ip link set wide0 up && ip route add default dev wide0 metric 500",
    ]);
    node.must_run(&["sh", "-c", "mkdir -p /run/NetworkManager /run/systemd/netif/links"]);

    let (ok, findings, _) = doctor(node, &[]);
    assert!(!ok);
    finds(&findings, "blocks", &["05-cilium.conflist", "rm /etc/cni/net.d/05-cilium.conflist"]);
    finds(&findings, "hinders", &["kube-proxy left 2", "nft delete table ip kube-proxy"]);
    finds(&findings, "hinders", &["ip filter FORWARD"]);
    finds(&findings, "hinders", &["strict on eth0"]);
    finds(&findings, "hinders", &["net.ipv4.ip_forward = 0"]);
    finds(&findings, "hinders", &["eth0 1500", "wide0 9000"]);
    finds(&findings, "hinders", &["NetworkManager", "fl??????????", "fairlead.vxlan"]);
    finds(&findings, "hinders", &["ManageForeignRoutes=no"]);

    write(
        node,
        "/etc/NetworkManager/conf.d/fairlead.conf",
        "[keyfile]\nunmanaged-devices=interface-name:fl??????????;interface-name:fairlead.vxlan\n",
    );
    write(node, "/etc/systemd/networkd.conf.d/fairlead.conf", "[Network]\nManageForeignRoutes=no\n");
    write(node, "/etc/systemd/network/zz-default.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
    let (_, findings, _) = doctor(node, &[]);
    assert!(
        !findings
            .iter()
            .any(|(_, text)| text.contains("NetworkManager is running and") || text.contains("ManageForeignRoutes"))
    );
    finds(&findings, "hinders", &["zz-default.network", "Unmanaged=yes"]);

    // kube-proxy itself: a process of that name.
    let sleep = node.must_run(&["sh", "-c", "command -v sleep"]);
    node.must_run(&["cp", sleep.trim(), "/run/kube-proxy"]);
    let proxy = node.spawn("kube-proxy", &["/run/kube-proxy", "1000"], &[]);
    let (_, findings, _) = doctor(node, &[]);
    finds(&findings, "hinders", &["kube-proxy is running", "delete daemonset kube-proxy"]);

    let agent = node.start_agent();
    lab.wait_until("the agent says so", || match agent.log() {
        log if log.contains("kube-proxy is running") => Ok(()),
        log => Err(log),
    });
    let status = node.fairlead(&["status"]);
    assert!(status.ok() && status.stdout.contains("kube-proxy is running"), "{status:?}");
    assert!(node.run(&["nft", "list", "chain", "ip", "nat", "KUBE-SERVICES"]).ok(), "nothing of its is touched");
    // The agent has loosened the filter and switched forwarding on.
    let (_, findings, _) = doctor(node, &[]);
    assert!(
        !findings.iter().any(|(_, text)| text.contains("strict on") || text.contains("ip_forward = 0")),
        "{findings:#?}"
    );
    proxy.kill(9);
}

/// As firewalld does it, and iptables-services.
#[test]
fn a_firewall_whose_last_rule_refuses_is_found_unless_pods_pass() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let nft = |rules: &[&str]| {
        let script = rules.iter().map(|rule| format!("{rule}\n")).collect::<String>();
        let nft = node.run_with(&["nft", "-f", "-"], &[], &script);
        assert!(nft.ok(), "{nft:?}");
    };
    let found = || {
        let (_, findings, _) = doctor(node, &[]);
        findings.into_iter().find(|(_, text)| text.contains("the firewall drops or rejects")).map(|(_, text)| text)
    };
    let chain = "inet firewalld filter_FORWARD";
    nft(&[
        "add table inet firewalld",
        &format!("add chain {chain} {{ type filter hook forward priority 10; policy accept; }}"),
        &format!("add rule {chain} iifname \"lo\" accept"),
        &format!("add rule {chain} counter drop"),
    ]);
    let text = found().unwrap();
    assert!(text.contains(chain) && text.contains("firewall-cmd"), "{text}");

    let status: Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
    let ranges: Vec<&str> =
        status["network"]["ranges"].as_array().unwrap().iter().map(|each| each["range"].as_str().unwrap()).collect();
    let [v4, v6] = ranges[..] else { panic!("{ranges:?}") };
    nft(&[&format!("insert rule {chain} ip saddr {v4} accept")]);
    assert!(found().is_some(), "IPv6 is dropped");
    nft(&[&format!("insert rule {chain} ip6 saddr {v6} accept")]);
    assert_eq!(found(), None);

    // A version that has its refusal in a chain behind.
    nft(&[&format!("flush chain {chain}"), &format!("add rule {chain} counter accept")]);
    assert!(found().unwrap().contains("rejects forwarded packets: inet firewalld |"), "{:?}", found());
    nft(&[&format!("insert rule {chain} iifname \"fl*\" accept")]);
    assert_eq!(found(), None);
}

#[test]
fn missing_file_systems_and_full_disks_are_found() {
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    let fairlead = binary("fairlead").unwrap();
    let json = |prepare: &str, arguments: &str| {
        let script = format!("{prepare}; exec {} doctor -o json {arguments}", fairlead.display());
        let ended = node.run(&["unshare", "-m", "sh", "-c", &script]);
        assert!(!ended.ok(), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        report["findings"].to_string()
    };
    let found = json("umount /sys/fs/bpf", "");
    assert!(found.contains("mount -t bpf -o mode=0700 bpf /sys/fs/bpf"), "{found}");
    let found = json("mount -t tmpfs none /sys/fs/cgroup", "");
    assert!(found.contains("no cgroup v2"), "{found}");
    let found = json("mkdir -p /run/fairlead; mount -t tmpfs -o size=16k none /run/fairlead", "");
    assert!(found.contains("/run/fairlead is full"), "{found}");
    let found = json("mkdir -p /etc/cni/net.d; mount -t tmpfs -o ro none /etc/cni/net.d", "");
    assert!(found.contains("/etc/cni/net.d is mounted read-only"), "{found}");
}

/// A container has a cgroup of its own, and hooks there would see nobody.
#[test]
fn a_containers_own_cgroup_is_refused() {
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    let fairlead = binary("fairlead").unwrap();
    // As a runtime does: a process namespace, a cgroup below the node's, and a namespace whose root that is.
    let script = format!(
        "mkdir /sys/fs/cgroup/pod && exec unshare -p -f --mount-proc sh -c '
             echo 0 >/sys/fs/cgroup/pod/cgroup.procs && exec unshare -C -m sh -c \"
                 mkdir -p /run/own && mount -t cgroup2 none /run/own &&
                 {{ {fairlead} doctor --cgroup-root /run/own; echo ----; {fairlead} doctor; }}\"'",
        fairlead = fairlead.display()
    );
    let ended = node.run_with(&["sh", "-c", &script], &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")], "");
    let (own, host) = ended.stdout.split_once("----").unwrap_or_else(|| panic!("{ended:?}"));
    assert!(own.contains("the cgroup of this container only"), "{own}");
    assert!(!host.contains("no usable cgroup v2 hierarchy"), "{host}");
}
