use super::super::findings::Severity;
use super::collect::{devices, listening};
use super::*;

/// A node of kube-proxy and flannel, on which Fairlead could run.
fn facts() -> Facts {
    Facts {
        bpffs: Some(("/sys/fs/bpf".into(), false)),
        settings: vec!["net.ipv4.ip_forward = 0".into()],
        proxy: Proxy { mode: Some("iptables".into()), rules: vec!["ip nat KUBE-SERVICES".into()], ..Proxy::default() },
        cni: Cni {
            directory: "/etc/cni/net.d".into(),
            own: "10-fairlead.conflist".into(),
            files: vec!["10-flannel.conflist".into(), "87-podman.conflist".into()],
            plugin_ok: true,
            ..Cni::default()
        },
        ..Facts::capable()
    }
}

fn texts(facts: &Facts, other: &Other) -> Vec<(Severity, String)> {
    let found = before_migration(facts, other);
    found.into_iter().map(|finding| (finding.severity, format!("{} | {}", finding.what, finding.remedy))).collect()
}

fn has(found: &[(Severity, String)], severity: Severity, words: &[&str]) {
    let met = found.iter().any(|(s, text)| *s == severity && words.iter().all(|word| text.contains(word)));
    assert!(met, "no {severity:?} with {words:?}: {found:#?}");
}

#[test]
fn what_is_there_because_fairlead_is_not_yet_stops_nothing() {
    let found = texts(&facts(), &Other::default());
    assert_eq!(found.len(), 2, "{found:#?}");
    has(&found, Severity::Hinders, &["kube-proxy runs in mode iptables, with 1 tables", "kube-proxy --cleanup"]);
    has(
        &found,
        Severity::Hinders,
        &["10-flannel.conflist, 87-podman.conflist", "drain", "takes precedence and new pods join", "#remaining-pods"],
    );
    let mut earlier = facts();
    earlier.cni.files.insert(0, "05-cilium.conflist".into());
    has(&texts(&earlier, &Other::default()), Severity::Hinders, &["05-cilium", "rm /etc/cni/net.d/05-cilium.conflist"]);
    let mut clean = facts();
    (clean.proxy, clean.cni.files) = (Proxy::default(), vec![]);
    assert_eq!(texts(&clean, &Other::default()), []);
    clean.proxy.ipvs = true;
    has(&texts(&clean, &Other::default()), Severity::Hinders, &["left the device kube-ipvs0"]);
}

#[test]
fn what_stops_fairlead_anywhere_stops_it_here() {
    let mut old = facts();
    old.kernel.version = Some((5, 15));
    let found = texts(&old, &Other::default());
    assert_eq!(found[0].0, Severity::Blocks);
    assert!(found[0].1.contains("6.1 or newer"), "{found:?}");
}

#[test]
fn ports_of_kube_proxy_are_free_once_it_is_gone_and_others_are_not() {
    let other = Other { ports: PORTS.into(), ..Other::default() };
    let found = texts(&facts(), &other);
    has(&found, Severity::Blocks, &["UDP port 4789,", "`vxlanPort`"]);
    assert!(!found.iter().any(|(_, text)| text.contains("10249") || text.contains("10256")), "{found:#?}");
    let mut without = facts();
    without.proxy = Proxy::default();
    let found = texts(&without, &other);
    has(&found, Severity::Blocks, &["TCP port 10256,", "`healthz.bind`"]);
    has(&found, Severity::Blocks, &["TCP port 10249,", "`metrics.bind`"]);
    // They are the agent's own.
    without.agent = Some(crate::doctor::facts::Agent { health: "ready".into(), ..Default::default() });
    assert!(!texts(&without, &other).iter().any(|(_, text)| text.contains("is in use")));
}

#[test]
fn ports_are_read_from_proc() {
    let tcp = "  sl  local_address rem_address   st tx_queue
   0: 0100007F:2809 00000000:0000 0A 00000000:00000000
   1: 0100007F:1A0A 0100007F:2809 01 00000000:00000000
   2: nonsense
";
    assert_eq!(listening(tcp).collect::<Vec<_>>(), [10249]);
    let udp6 = "  sl  local_address                         remote_address                        st tx_queue
  12: 00000000000000000000000000000000:12B5 00000000000000000000000000000000:0000 07 00000000:00000000
";
    assert_eq!(listening(udp6).collect::<Vec<_>>(), [4789]);
    assert_eq!(listening("").count(), 0);
}

#[test]
fn devices_are_told_by_their_names() {
    let names =
        ["eth0", "flannel.1", "cni0", "lo", "fl0123456789", "cilium_host", "cilium_net", "veth12"].map(str::to_owned);
    let found = devices(&names);
    let expected = [
        ("Cilium", vec!["cilium_host", "cilium_net"]),
        ("flannel", vec!["flannel.1"]),
        ("the bridge plugin (flannel's too)", vec!["cni0"]),
    ];
    let found: Vec<_> =
        found.iter().map(|(whose, names)| (*whose, names.iter().map(String::as_str).collect())).collect();
    assert_eq!(found, expected);
    let other = Other { devices: devices(&names), ..Other::default() };
    has(&texts(&facts(), &other), Severity::Hinders, &["devices of flannel: flannel.1", "ip link delete flannel.1"]);
}

#[test]
fn a_corefile_that_is_refused_stops_it() {
    let refused = Other { corefile: Some(Err("Corefile:7: autopath is not supported\n".into())), ..Other::default() };
    has(&texts(&facts(), &refused), Severity::Blocks, &["Corefile:7: autopath is not supported", "keep CoreDNS"]);
    let fine = Other { corefile: Some(Ok(())), ..Other::default() };
    assert!(!texts(&facts(), &fine).iter().any(|(_, text)| text.contains("Corefile")));
}

#[test]
fn the_objects_of_the_cluster_say_whether_nodes_have_ranges_of_their_own() {
    let node = |name: &str, ranges: &str| {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, spec: {{podCIDRs: [{ranges}]}}}}")
    };
    let list = |items: &[String]| format!("{{apiVersion: v1, kind: List, items: [{}]}}", items.join(", "));
    let of = |text: &str| {
        let cluster = Some(ClusterFacts::read(text));
        texts(
            &Facts { proxy: Proxy::default(), cni: Cni::default(), ..facts() },
            &Other { cluster, ..Other::default() },
        )
    };
    let good = [node("a", "10.244.0.0/24, 'fd00:0::/64'"), node("b", "10.244.1.0/24, 'fd00:0:0:1::/64'")];
    assert_eq!(of(&list(&good)), []);
    has(
        &of(&list(&[node("a", "10.244.0.0/24"), node("b", "")])),
        Severity::Blocks,
        &["(spec.podCIDRs): b |", "annotatedRanges"],
    );
    let annotated =
        "{apiVersion: v1, kind: Node, metadata: {name: b, annotations: {fairlead.io/pod-cidrs: 10.244.1.0/24}}}";
    let told = of(&list(&[node("a", "10.244.0.0/24"), annotated.to_owned()]));
    assert_eq!(told.len(), 1, "{told:?}");
    has(&told, Severity::Hinders, &["annotation fairlead.io/pod-cidrs", "set `annotatedRanges`"]);
    let overlap = [
        node("a", "10.244.0.0/16"),
        node("b", "10.244.7.0/24"),
        node("c", "10.245.0.0/24"),
        node("d", "10.244.9.0/24"),
    ];
    let found = of(&list(&overlap));
    has(
        &found,
        Severity::Blocks,
        &["10.244.0.0/16 of a and 10.244.7.0/24 of b", "10.244.0.0/16 of a and 10.244.9.0/24 of d"],
    );
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: \
                  {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]}}";
    has(&of(&list(&[good[0].clone(), policy.to_owned()])), Severity::Hinders, &["NetworkPolicy shop/p", "nonsense"]);
    has(&of(""), Severity::Blocks, &["names no Node"]);
    has(&of("{{{"), Severity::Hinders, &["can't read"]);
}
