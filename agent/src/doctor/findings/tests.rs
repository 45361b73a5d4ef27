use fairlead_cni::Version;

use super::super::facts::{Cni, NodeLocalDns, OlderPlugin};
use super::*;

/// A node on which nothing is wrong.
fn healthy() -> Facts {
    Facts {
        bpffs: Some(("/sys/fs/bpf".into(), true)),
        cni: Cni {
            directory: "/etc/cni/net.d".into(),
            own: "10-fairlead.conflist".into(),
            files: vec!["10-fairlead.conflist".into(), "87-podman.conflist".into()],
            lead_here: vec!["10-fairlead.conflist".into()],
            missing: vec![],
            refused: vec![],
            older: vec![],
            plugin: "/opt/cni/bin/fairlead-cni".into(),
            plugin_ok: true,
        },
        pods: vec![("fl0123456789".into(), 1500)],
        network_manager: Some(NetworkManager { keeps_off: true }),
        networkd: Some(Networkd { keeps_routes: true, claims: vec![] }),
        api_server: Some(ApiServer { url: "https://192.0.2.1:6443".into(), ..ApiServer::default() }),
        disks: vec![Disk { path: "/run/fairlead".into(), bytes: 1 << 30, files: Some(1000), read_only: false }],
        agent: Some(Agent { health: "ready".into(), ..Agent::default() }),
        ..Facts::capable()
    }
}

/// A finding is made of one change to a healthy node.
struct Case {
    what: &'static str,
    change: fn(&mut Facts),
    severity: Severity,
    /// Words of the finding.
    says: &'static str,
    /// Words of its remedy.
    remedy: &'static str,
}

const fn case(
    what: &'static str,
    change: fn(&mut Facts),
    severity: Severity,
    says: &'static str,
    remedy: &'static str,
) -> Case {
    Case { what, change, severity, says, remedy }
}

const CASES: [Case; 39] = [
    case("old kernel", |f| f.kernel.version = Some((5, 15)), Severity::Blocks, "Linux 6.12.0", "6.1 or newer"),
    case(
        "lack",
        |f| f.kernel.lacks = vec!["ring buffers".into()],
        Severity::Blocks,
        "ring buffers",
        "CONFIG_CGROUP_BPF",
    ),
    case("no bpf", |f| f.kernel.refuses = Some("EPERM".into()), Severity::Blocks, "EPERM", "CAP_BPF"),
    case("no btf", |f| f.kernel.btf = Some(false), Severity::Hinders, "btf", "CONFIG_DEBUG_INFO_BTF"),
    case("no jit", |f| f.kernel.jit = Some(false), Severity::Hinders, "JIT is disabled", "bpf_jit_enable=1"),
    case(
        "no way to close sockets",
        |f| f.kernel.ends_sockets = Some(false),
        Severity::Hinders,
        "close sockets",
        "CONFIG_INET_DIAG_DESTROY",
    ),
    case(
        "no bpffs",
        |f| f.bpffs = Some(("/b".into(), false)),
        Severity::Blocks,
        "/b",
        "mount -t bpf -o mode=0700 bpf /b",
    ),
    case(
        "a keeper that fails",
        |f| f.keeper = Keeper::Runs("CNI plugin: no\n".into()),
        Severity::Hinders,
        "CNI plugin: no",
        "-c keep",
    ),
    case(
        "a keeper that hangs",
        |f| f.keeper = Keeper::Silent(std::time::Duration::from_secs(77)),
        Severity::Hinders,
        "has not looked for 77 s",
        "restart it",
    ),
    case("no cgroup", |f| f.cgroup = Some("mount one".into()), Severity::Blocks, "socket hooks", "mount one"),
    case("kube-proxy", |f| f.proxy.processes = vec![7], Severity::Hinders, "is running", "delete daemonset kube-proxy"),
    case("its mode", |f| f.proxy.mode = Some("ipvs".into()), Severity::Hinders, "in mode ipvs", "--cleanup"),
    case(
        "its rules",
        |f| f.proxy.rules = vec!["ip nat KUBE-SERVICES".into(), "ip6 nat KUBE-SERVICES".into()],
        Severity::Hinders,
        "kube-proxy left 2 of its tables and chains, such as ip nat KUBE-SERVICES",
        "nft delete table ip kube-proxy",
    ),
    case("ipvs", |f| f.proxy.ipvs = true, Severity::Hinders, "kube-ipvs0", "ip link delete kube-ipvs0"),
    case(
        "docker",
        |f| f.forward_drop = vec!["ip filter FORWARD".into()],
        Severity::Hinders,
        "ip filter FORWARD",
        "iptables -I FORWARD -i fl+ -j ACCEPT",
    ),
    case(
        "firewalld",
        |f| f.forward_drop = vec!["inet firewalld filter_FORWARD".into()],
        Severity::Hinders,
        "inet firewalld filter_FORWARD",
        "firewall-cmd --permanent --zone=trusted --add-source=",
    ),
    case(
        "other first",
        |f| f.cni.files.insert(0, "05-cilium.conflist".into()),
        Severity::Blocks,
        "05-cilium.conflist",
        "rm /etc/cni/net.d/05-cilium.conflist",
    ),
    case("no plugin", |f| f.cni.plugin_ok = false, Severity::Blocks, "/opt/cni/bin/fairlead-cni", "fairlead install"),
    case(
        "bandwidth",
        |f| f.cni.refused.push("bandwidth".into()),
        Severity::Blocks,
        "the plugin bandwidth",
        "kubernetes.io/ingress-bandwidth",
    ),
    case(
        "an old plugin",
        |f| {
            let (wanted, serves) = (Version::V1_1_0, Some(Version::V1_0_0));
            f.cni.older.push(OlderPlugin { kind: "istio-cni".into(), wanted, serves });
        },
        Severity::Blocks,
        "istio-cni in 10-fairlead.conflist does not serve CNI 1.1.0",
        "`cniVersion` to 1.0.0 in /etc/cni/net.d/10-fairlead.conflist",
    ),
    case("no tuning", |f| f.cni.missing.push("tuning".into()), Severity::Blocks, "10-fairlead.conflist", "`cni.chain`"),
    case("no uplink", |f| f.uplinks = Some(vec![]), Severity::Blocks, "no uplink", "`uplinks`"),
    case(
        "two MTUs",
        |f| f.uplinks.as_mut().unwrap().push(UplinkFacts { name: "eth1".into(), mtu: 9000, ..UplinkFacts::default() }),
        Severity::Hinders,
        "eth0 1500, eth1 9000",
        "ip link set",
    ),
    case("large pod", |f| f.pods[0].1 = 9000, Severity::Hinders, "fl0123456789 9000", "recreate"),
    case(
        "strict",
        |f| f.uplinks.as_mut().unwrap()[0].strict = true,
        Severity::Hinders,
        "strict on eth0",
        "net.ipv4.conf.eth0.rp_filter=2",
    ),
    case(
        "others' programs",
        |f| f.uplinks.as_mut().unwrap()[0].before = vec!["cil_from_netdev".into()],
        Severity::Hinders,
        "cil_from_netdev",
        "bpftool net show dev eth0",
    ),
    case(
        "no forwarding",
        |f| f.settings = vec!["net.ipv4.ip_forward = 0".into()],
        Severity::Hinders,
        "net.ipv4.ip_forward = 0",
        "/etc/sysctl.d",
    ),
    case("no IPv6", |f| f.no_ipv6 = true, Severity::Hinders, "IPv6", "disable_ipv6=0"),
    case(
        "NetworkManager",
        |f| f.network_manager = Some(NetworkManager { keeps_off: false }),
        Severity::Hinders,
        "NetworkManager",
        "unmanaged-devices=interface-name:fl??????????;interface-name:fairlead.vxlan",
    ),
    case(
        "networkd claims",
        |f| f.networkd = Some(Networkd { keeps_routes: true, claims: vec!["/etc/systemd/network/zz.network".into()] }),
        Severity::Hinders,
        "zz.network",
        "Unmanaged=yes",
    ),
    case(
        "networkd routes",
        |f| f.networkd = Some(Networkd { keeps_routes: false, claims: vec![] }),
        Severity::Hinders,
        "removes foreign routes",
        "ManageForeignRoutes=no",
    ),
    case(
        "API server away",
        |f| f.api_server.as_mut().unwrap().trouble = Some("connection refused".into()),
        Severity::Blocks,
        "https://192.0.2.1:6443",
        "apiServer",
    ),
    case("full disk", |f| f.disks[0].bytes = 4096, Severity::Blocks, "4 KiB free", "df -h /run/fairlead"),
    case("no inodes", |f| f.disks[0].files = Some(0), Severity::Blocks, "no free inodes", "df -i /run/fairlead"),
    case("read-only", |f| f.disks[0].read_only = true, Severity::Blocks, "read-only", "remount,rw"),
    case(
        "no pod range",
        |f| {
            f.agent =
                Some(Agent { health: "starting".into(), reason: Some("no pod range".into()), ..Agent::default() });
        },
        Severity::Blocks,
        "no pod range",
        "kubectl -n kube-system logs",
    ),
    case(
        "claims in vain",
        |f| f.agent.as_mut().unwrap().claims = vec![("Service shop/thief".into(), "it is another's".into())],
        Severity::Hinders,
        "Service shop/thief: it is another's",
        "fairlead service explain",
    ),
    case(
        "unchecked pods",
        |f| f.agent.as_mut().unwrap().pod_ranges = vec!["0.0.0.0/0".into()],
        Severity::Hinders,
        "0.0.0.0/0 are not checked",
        "remove the setting",
    ),
    case(
        "node-local DNS that is gone",
        |f| f.node_local_dns = vec![node_local_dns(false)],
        Severity::Hinders,
        "kubelet gives pods 169.254.20.10 for DNS (clusterDNS in kubelet's --cluster-dns)",
        "nodeLocalDns: [169.254.20.10]",
    ),
];

fn node_local_dns(here: bool) -> NodeLocalDns {
    NodeLocalDns { address: [169, 254, 20, 10].into(), origin: "kubelet's --cluster-dns".into(), here }
}

#[test]
fn node_local_dns_that_somebody_serves_is_no_finding() {
    let mut facts = healthy();
    facts.node_local_dns = vec![node_local_dns(true)];
    assert_eq!(findings(&facts), [], "NodeLocal DNSCache is here");
    facts.node_local_dns = vec![node_local_dns(false)];
    facts.agent.as_mut().unwrap().node_local_dns = vec![[169, 254, 20, 10].into()];
    assert_eq!(findings(&facts), [], "the agent serves it");
    facts.agent = None;
    assert_eq!(findings(&facts).len(), 1);
}

#[test]
fn a_firewall_is_opened_by_its_own_means() {
    let remedy = |chains: &[&str]| {
        let forward_drop = chains.iter().map(ToString::to_string).collect();
        findings(&Facts { forward_drop, ..healthy() }).remove(0).remedy
    };
    let firewalld = remedy(&["inet firewalld"]);
    assert!(firewalld.contains("firewall-cmd") && !firewalld.contains("iptables"), "{firewalld}");
    let iptables = remedy(&["ip filter FORWARD"]);
    assert!(!iptables.contains("firewall-cmd") && iptables.contains("iptables"), "{iptables}");
    let both = remedy(&["inet firewalld", "ip filter FORWARD"]);
    assert!(both.contains("firewall-cmd") && both.contains("iptables"), "{both}");
}

#[test]
fn a_healthy_node_has_none() {
    assert_eq!(findings(&healthy()), []);
}

#[test]
fn each_change_is_found_with_its_remedy() {
    for Case { what, change, severity, says, remedy } in CASES {
        let mut facts = healthy();
        change(&mut facts);
        let found = findings(&facts);
        let [finding] = found.as_slice() else { panic!("{what}: {found:#?}") };
        assert_eq!(finding.severity, severity, "{what}");
        assert!(finding.what.contains(says), "{what}: {}", finding.what);
        assert!(finding.remedy.contains(remedy), "{what}: {}", finding.remedy);
    }
}

#[test]
fn the_worst_comes_first_and_nothing_is_said_twice() {
    let mut facts = healthy();
    CASES.iter().for_each(|case| (case.change)(&mut facts));
    let warnings =
        [("kube-proxy", "is running"), ("sysctls", "read-only")].map(|(topic, text)| (topic.into(), text.into()));
    facts.agent.as_mut().unwrap().warnings = warnings.into();
    let found = findings(&facts);
    assert!(found.is_sorted_by_key(|finding| finding.severity));
    assert_eq!(found.iter().filter(|finding| finding.what.contains("kube-proxy is running")).count(), 1);
    assert_eq!(found.iter().filter(|finding| finding.what.contains("read-only")).count(), 2, "a disk, and a warning");
}

/// What could not be looked at is no finding.
#[test]
fn a_node_that_nobody_could_look_at_has_none() {
    assert_eq!(findings(&Facts::default()), []);
}

#[test]
fn c37_a_configuration_in_front_that_leads_here_is_no_finding() {
    let mut facts = healthy();
    facts.cni.files.insert(0, "00-multus.conf".into());
    facts.cni.lead_here.push("00-multus.conf".into());
    assert_eq!(findings(&facts), []);
    // Whatever is between them is never taken.
    facts.cni.files.insert(1, "05-cilium.conflist".into());
    assert_eq!(findings(&facts), []);
    facts.cni.files.swap(0, 1);
    assert!(findings(&facts)[0].what.contains("05-cilium.conflist"));
}
