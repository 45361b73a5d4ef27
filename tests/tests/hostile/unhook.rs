//! What others on the node do to what Fairlead attached and wired: an agent that runs puts it right.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::{Lab, Node, Pod, Probe, ProbeError, Probes, binary};
use serde_json::{Value, json};

use crate::world::{SILENCE, policy, wait_until_silent};

const PORT: u16 = 80;

/// How long it may take until something is found that nothing tells of: the agent looks every ten seconds.
const FOUND: Duration = Duration::from_secs(25);

/// How long it may take until something is put right that the kernel tells of. Far less than what is looked at anyway.
const TOLD: Duration = Duration::from_secs(4);

/// A node with a pod that is open and one that lets nobody in.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) open: Pod,
    pub(crate) closed: Pod,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let lab = Lab::builder().nodes(1).start();
        lab.client().serve("outside/server", &[PORT], &[53]);
        let node = lab.node("node-1");
        let open = node.pod("unhook/open").tcp(PORT).udp(53).start();
        let closed = node.pod("unhook/closed").label("role", "closed").tcp(PORT).udp(53).start();
        policy(&lab, "unhook", "closed", &json!({"policyTypes": ["Ingress"]}));
        wait_until_silent(&lab, &open, &closed, PORT);
        Self { lab, open, closed }
    }

    pub(crate) fn node(&self) -> &Node {
        self.lab.node("node-1")
    }

    /// Nobody but the node gets in where nobody may, and whoever may gets through.
    #[track_caller]
    pub(crate) fn assert_policy_holds(&self, what: &str) {
        for ip in self.closed.ips() {
            let asks = Probe::tcp(ip, PORT).timeout(SILENCE);
            assert_eq!(self.open.probe(&asks).unwrap_err(), ProbeError::TimedOut, "{what}: {ip}");
            assert_eq!(self.node().tcp(ip, PORT).unwrap().server.pod, self.closed.key(), "{what}");
        }
        for ip in self.open.ips() {
            assert_eq!(self.closed.tcp(ip, PORT).unwrap().server.pod, self.open.key(), "{what}");
        }
        for ip in outside() {
            self.open.tcp(ip, PORT).unwrap_or_else(|error| panic!("{what}: {ip}: {error}"));
        }
    }
}

fn outside() -> [IpAddr; 2] {
    crate::world::outside()
}

/// The name of a pod's interface on its node.
pub(crate) fn host_side(pod: &Pod) -> String {
    let interfaces = pod.result()["interfaces"].as_array().unwrap().iter();
    let mut host = interfaces.filter(|each| each["sandbox"].as_str().unwrap_or_default().is_empty());
    host.next().unwrap()["name"].as_str().unwrap().to_owned()
}

pub(crate) fn status(node: &Node) -> Value {
    let ended = node.fairlead(&["status", "-o", "json"]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The repairs that the agent names, the latest first: time, kind, what.
pub(crate) fn repairs(node: &Node) -> Vec<(String, String, String)> {
    let status = status(node);
    let text = |repair: &Value, field: &str| repair[field].as_str().unwrap().to_owned();
    let all = status["repairs"].as_array().unwrap().iter();
    all.map(|repair| (text(repair, "time"), text(repair, "kind"), text(repair, "what"))).collect()
}

/// Does something and waits until the agent says that it has put right something of each of these kinds.
#[track_caller]
pub(crate) fn repaired_after(node: &Node, within: Duration, kinds: &[&str], harm: impl FnOnce()) {
    let before = repairs(node).first().map(|(time, ..)| time.clone()).unwrap_or_default();
    harm();
    let begin = Instant::now();
    loop {
        let new: Vec<_> = repairs(node).into_iter().filter(|(time, ..)| *time > before).collect();
        if kinds.iter().all(|kind| new.iter().any(|(_, of, _)| of == kind)) {
            return;
        }
        assert!(begin.elapsed() < within, "after {within:?} not repaired: {kinds:?}, but {new:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn c31_what_takes_a_pods_routes_and_neighbours_away_does_not_last() {
    let stage = Stage::new();
    let node = stage.node();
    let (link, [v4, v6]) = (host_side(&stage.open), stage.open.ips());
    let mut open: Vec<_> = stage.open.ips().map(|ip| node.connect(&Probe::tcp(ip, PORT)).unwrap()).into();
    let harms: [(String, &[&str]); 8] = [
        // As systemd-networkd, netplan and NetworkManager do it.
        (format!("ip link set {link} down && ip link set {link} up"), &["route", "neighbour"]),
        (format!("ip link set {link} down"), &["link", "route", "neighbour"]),
        (format!("ip link set {link} address 02:00:00:00:00:77"), &["link"]),
        (format!("ip route del {v4}/32 dev {link}"), &["route"]),
        (format!("ip route del {v6}/128 dev {link}"), &["route"]),
        (format!("ip neigh del {v4} dev {link}"), &["neighbour"]),
        (format!("ip neigh replace {v6} lladdr 02:00:00:00:00:66 dev {link} nud permanent"), &["neighbour"]),
        (format!("ip route flush dev {link}; ip -6 route flush dev {link}; ip neigh flush dev {link}"), &["route"]),
    ];
    for (harm, kinds) in harms {
        repaired_after(node, TOLD, kinds, || drop(node.must_run(&["sh", "-c", &harm])));
        stage.assert_policy_holds(&harm);
        for ip in stage.open.ips() {
            node.tcp(ip, PORT).unwrap_or_else(|error| panic!("{harm}: {error}"));
        }
        for connection in &mut open {
            connection.exchange(10, 10).unwrap_or_else(|error| panic!("{harm}: {error}"));
        }
    }
    assert_eq!(status(node)["health"], "ready");
}

#[test]
fn c31_settings_that_somebody_resets_are_set_again() {
    let stage = Stage::new();
    let node = stage.node();
    let link = host_side(&stage.open);
    // For all devices, which changes each of them, and then for a pod's alone.
    let all = "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0";
    let one = format!("sysctl -qw net.ipv4.conf.{link}.forwarding=0 net.ipv6.conf.{link}.forwarding=0");
    for harm in [all, &one] {
        repaired_after(node, FOUND, &["sysctl"], || drop(node.must_run(&["sh", "-c", harm])));
        stage.assert_policy_holds(harm);
    }
}

#[test]
fn c32_programs_and_pins_that_somebody_removes_come_back() {
    let stage = Stage::new();
    let node = stage.node();
    let lab = binary("fairlead-lab").unwrap();
    let detach = format!("{} detach /sys/fs/bpf/fairlead/links/*", lab.display());
    let harms: [(&str, &[&str]); 5] = [
        (&detach, &["program"]),
        ("rm /sys/fs/bpf/fairlead/links/*", &["pin"]),
        ("rm /sys/fs/bpf/fairlead/maps/*", &["pin"]),
        ("rm -r /sys/fs/bpf/fairlead", &["bpffs", "pin"]),
        ("umount /sys/fs/bpf", &["bpffs", "pin"]),
    ];
    for (harm, kinds) in harms {
        repaired_after(node, FOUND, kinds, || drop(node.must_run(&["sh", "-c", harm])));
        stage.assert_policy_holds(harm);
    }
    // All of it is where the next agent looks for it.
    node.agent().kill9();
    stage.assert_policy_holds("without an agent");
    node.start_agent();
    assert_eq!(status(node)["adopted"], true);
    stage.assert_policy_holds("with the next agent");
}
