//! What others on the node do to what Fairlead attached and wired: an agent that runs puts it right, and without one nothing
//! passes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::frames::{Wire, datagram};
use fairlead_tests::{Drops, Lab, Node, Pod, Probe, ProbeError, Probes, Vantage, binary};
use serde_json::{Value, json};

use crate::world::{MARK, SILENCE, policy, smuggled, wait_until_silent};

const PORT: u16 = 80;

/// How long it may take until something is found that nothing tells of: the agent looks every ten seconds.
const FOUND: Duration = Duration::from_secs(40);

/// How long it may take until something is put right that the kernel tells of. Less than what is looked at anyway: harm that
/// follows a repair at once would wait for the next look, which is ten seconds after the one before.
const TOLD: Duration = Duration::from_secs(8);

/// A node with a pod that is open and one that lets nobody in.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) open: Pod,
    pub(crate) closed: Pod,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::of(Lab::builder().nodes(1).start())
    }

    /// In a lab of one node, whose pods are known to the host outside.
    pub(crate) fn of(lab: Lab) -> Self {
        for (pods, by) in ["10.244.1.0/24", "fd00:10:244:1::/64"].iter().zip(lab.node("node-1").ips()) {
            lab.client().must_run(&["ip", "route", "add", pods, "via", &by.to_string()]);
        }
        lab.client().serve("outside/server", &[PORT], &[53]);
        let node = lab.node("node-1");
        let open = node.pod("unhook/open").tcp(PORT).udp(53).start();
        let closed = node.pod("unhook/closed").label("role", "closed").tcp(PORT).udp(53).start();
        policy(&lab, "unhook", "closed", &json!({"policyTypes": ["Ingress"]}));
        wait_until_silent(&lab, &open, &closed, PORT);
        for pod in [&open, &closed] {
            wait_for_links(&lab, node, pod);
        }
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
        self.assert_outside_meets_policy(what);
    }

    /// Waits until everybody reaches whom he may: what is put right is so part by part.
    #[track_caller]
    fn wait_until_reached(&self, within: Duration, what: &str) {
        for ip in self.open.ips() {
            self.lab.wait_within(within, &format!("{what}: {ip} is reached"), || {
                let by_others = self.node().tcp(ip, PORT).and(self.closed.tcp(ip, PORT));
                by_others.and(self.lab.client().tcp(ip, PORT))
            });
        }
        for ip in self.closed.ips() {
            self.lab.wait_within(within, &format!("{what}: {ip} is reached"), || self.node().tcp(ip, PORT));
        }
        for ip in outside() {
            self.lab.wait_within(within, &format!("{what}: {ip} is reached"), || self.open.tcp(ip, PORT));
        }
    }

    /// The host outside gets in where it may.
    #[track_caller]
    fn assert_outside_meets_policy(&self, what: &str) {
        for ip in self.closed.ips() {
            let asks = Probe::tcp(ip, PORT).timeout(SILENCE);
            let answer = self.lab.client().probe(&asks);
            assert_eq!(answer.unwrap_err(), ProbeError::TimedOut, "{what}: {ip} from outside");
        }
        for ip in self.open.ips() {
            self.lab.client().tcp(ip, PORT).unwrap_or_else(|error| panic!("{what}: {ip} from outside: {error}"));
        }
    }

    /// Neither pod says anything to anybody, and nobody to them.
    #[track_caller]
    fn assert_cut_off(&self, what: &str) {
        let silent = |from: &Vantage, to: IpAddr| {
            for asks in [Probe::tcp(to, PORT), Probe::udp(to, 53)] {
                match from.probe(&asks.timeout(SILENCE)) {
                    Err(ProbeError::TimedOut) => {}
                    other => panic!("{what}: {to} from {from:?}: {other:?}"),
                }
            }
        };
        let mut seen = [&self.open, &self.closed].map(|pod| pod.packets("eth0"));
        for pod in [&self.open, &self.closed] {
            for to in pod.ips() {
                silent(self.node().vantage(), to);
                silent(self.lab.client(), to);
            }
            for to in outside() {
                silent(pod.vantage(), to);
            }
        }
        for (one, other) in [(&self.open, &self.closed), (&self.closed, &self.open)] {
            other.ips().iter().for_each(|to| silent(one.vantage(), *to));
        }
        for seen in &mut seen {
            let frames = seen.collect(Duration::from_millis(60), |frame| !frame.outgoing);
            assert!(
                frames.is_empty(),
                "{what}: {} frames arrived, the first is {:x?}",
                frames.len(),
                frames[0].bytes()
            );
        }
    }

    /// Waits until the kernel has detached what nobody holds any more, which it does in a work queue.
    #[track_caller]
    fn wait_until_detached(&self) {
        for (from, to) in [(&self.open, &self.closed), (&self.closed, &self.open)] {
            wait_until_silent(&self.lab, from, to, PORT);
            wait_until_silent(&self.lab, self.node(), to, PORT);
        }
    }
}

fn outside() -> [IpAddr; 2] {
    crate::world::outside()
}

/// Waits until the agent has made a pod's links, which it does behind the ADD.
#[track_caller]
pub(crate) fn wait_for_links(lab: &Lab, node: &Node, pod: &Pod) {
    let link = host_side(pod);
    lab.wait_until(&format!("{} has its links", pod.key()), || {
        let links = node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]);
        let all = ["in", "out"].iter().all(|way| links.contains(&format!("tcx_{way}_{link}")));
        if all { Ok(()) } else { Err(links) }
    });
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
    let harms: [(String, &[&str]); 11] = [
        // As systemd-networkd, netplan and NetworkManager do it.
        (format!("ip link set {link} down && ip link set {link} up"), &["route", "neighbour"]),
        (format!("ip link set {link} down"), &["link", "route", "neighbour"]),
        (format!("ip link set {link} address 02:00:00:00:00:77"), &["link"]),
        (format!("ip route del {v4}/32 dev {link}"), &["route"]),
        (format!("ip route del {v6}/128 dev {link}"), &["route"]),
        (format!("ip neigh del {v4} dev {link}"), &["neighbour"]),
        (format!("ip neigh replace {v6} lladdr 02:00:00:00:00:66 dev {link} nud permanent"), &["neighbour"]),
        (format!("ip route flush dev {link}; ip -6 route flush dev {link}; ip neigh flush dev {link}"), &["route"]),
        // Less than IPv6 needs: the kernel takes all of it away.
        (format!("ip link set {link} mtu 1000"), &["link", "route", "neighbour"]),
        (format!("ip link add bridge type bridge && ip link set {link} master bridge"), &["link"]),
        // As a rule of udev may.
        (format!("ip link set {link} name renamed0"), &["link"]),
    ];
    for (harm, kinds) in harms {
        repaired_after(node, TOLD, kinds, || drop(node.must_run(&["sh", "-c", &harm])));
        stage.wait_until_reached(TOLD, &harm);
        stage.assert_policy_holds(&harm);
        for ip in stage.open.ips() {
            node.tcp(ip, PORT).unwrap_or_else(|error| panic!("{harm}: {error}"));
        }
        for connection in &mut open {
            connection.exchange(10, 10).unwrap_or_else(|error| panic!("{harm}: {error}"));
        }
    }
    node.must_run(&["ip", "link", "show", &link]);
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
        stage.wait_until_reached(FOUND, harm);
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

#[test]
fn c33_no_packet_passes_while_programs_are_missing() {
    let stage = Stage::new();
    let node = stage.node();
    assert_eq!(Drops::of(node).count("no_program"), 0, "no packet gets to the guards while the programs are there");
    let lab = binary("fairlead-lab").unwrap();
    let mut seen = stage.closed.packets("eth0");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = Wire::of(&stage.open);
            while !done.load(Ordering::Relaxed) {
                for (own, to) in stage.open.ips().into_iter().zip(stage.closed.ips()) {
                    let (kind, packet) = datagram(own, to, (45_001, 53), MARK);
                    wire.send(kind, &packet);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let detach = format!("{} detach /sys/fs/bpf/fairlead/links/tcx_*", lab.display());
        // The agent may look right then, before a packet has come.
        for _ in 0..6 {
            repaired_after(node, FOUND, &["program"], || drop(node.must_run(&["sh", "-c", &detach])));
            if Drops::of(node).count("no_program") > 0 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let arrived = seen.collect(Duration::from_millis(60), smuggled);
    assert!(arrived.is_empty(), "{} packets arrived", arrived.len());
    assert!(Drops::of(node).count("no_program") > 0, "{:?}", Drops::of(node).counts());
    stage.assert_policy_holds("the programs are back");
}

#[test]
fn c33_without_programs_and_agent_pods_are_cut_off_until_an_agent_is_back() {
    let stage = Stage::new();
    let node = stage.node();
    let mut open: Vec<_> = stage.open.ips().map(|ip| stage.closed.connect(&Probe::tcp(ip, PORT)).unwrap()).into();
    node.agent().kill9();
    stage.assert_policy_holds("without an agent");
    node.must_run(&["sh", "-c", "rm /sys/fs/bpf/fairlead/links/*"]);
    stage.wait_until_detached();
    stage.assert_cut_off("without links");
    node.start_agent();
    assert_eq!(status(node)["adopted"], true);
    stage.wait_until_reached(FOUND, "with an agent that has the tables");
    stage.assert_policy_holds("with an agent that has the tables");
    for connection in &mut open {
        connection.exchange(10, 10).unwrap();
    }
    // The tables go too.
    node.agent().kill9();
    node.must_run(&["umount", "/sys/fs/bpf"]);
    stage.wait_until_detached();
    stage.assert_cut_off("without the file system");
    node.start_agent();
    assert_eq!(status(node)["adopted"], false);
    wait_until_silent(&stage.lab, &stage.open, &stage.closed, PORT);
    stage.wait_until_reached(FOUND, "with an agent that has made new tables");
    stage.assert_policy_holds("with an agent that has made new tables");
}

#[test]
fn c33_each_program_that_is_missing_is_missed_by_itself() {
    let stage = Stage::new();
    let node = stage.node();
    node.agent().kill9();
    let link = host_side(&stage.closed);
    let remove =
        |way: &str, link: &str| node.must_run(&["rm", &format!("/sys/fs/bpf/fairlead/links/tcx_{way}_{link}")]);
    // What comes in from outside meets the pod's own program.
    remove("in", "eth0");
    stage.lab.wait_until("the node takes packets for the open pod", || stage.lab.client().tcp(stage.open.v4(), PORT));
    stage.assert_outside_meets_policy("without the uplink's program");
    // What the pod sends meets its guard. Others are not concerned.
    remove("in", &link);
    wait_until_silent(&stage.lab, &stage.closed, &stage.open, PORT);
    wait_until_silent(&stage.lab, node, &stage.closed, PORT);
    // What the stack sends to it does too.
    remove("out", &link);
    // The kernel detaches it some time after its pin is gone.
    stage.lab.wait_until("nothing that the node sends arrives", || {
        let mut seen = stage.closed.packets("eth0");
        let _ = node.probe(&Probe::udp(stage.closed.v4(), 53).timeout(SILENCE));
        let arrived = seen.collect(Duration::from_millis(300), |frame| !frame.outgoing);
        if arrived.is_empty() { Ok(()) } else { Err(arrived.len()) }
    });
    let mut seen = stage.closed.packets("eth0");
    for to in stage.closed.ips() {
        let asked = node.probe(&Probe::udp(to, 53).timeout(SILENCE));
        assert_eq!(asked.unwrap_err(), ProbeError::TimedOut);
        let asked = stage.lab.client().probe(&Probe::udp(to, 53).timeout(SILENCE));
        assert_eq!(asked.unwrap_err(), ProbeError::TimedOut);
    }
    let arrived = seen.collect(Duration::from_millis(60), |frame| !frame.outgoing);
    assert!(arrived.is_empty(), "{} frames arrived", arrived.len());
    for to in stage.open.ips() {
        assert_eq!(node.tcp(to, PORT).unwrap().server.pod, stage.open.key());
    }
    node.start_agent();
    // Flows that began while the uplink's program was missing go on through the stack, and time out.
    for to in outside() {
        stage.lab.wait_until("the host outside is reached again", || stage.open.tcp(to, PORT));
    }
    stage.wait_until_reached(FOUND, "with an agent");
    stage.assert_policy_holds("with an agent");
}

#[test]
fn c33_an_interface_that_is_no_uplink_is_no_way_past_policy() {
    let stage = Stage::of(Lab::builder().nodes(1).agent(&["--uplink", "another"]).start());
    stage.assert_outside_meets_policy("without any uplink");
    for ip in stage.open.ips() {
        assert_eq!(stage.node().tcp(ip, PORT).unwrap().server.pod, stage.open.key());
    }
}

#[test]
fn c32_guards_that_somebody_removes_come_back() {
    let stage = Stage::new();
    let node = stage.node();
    let link = host_side(&stage.closed);
    for harm in [
        format!("tc qdisc del dev {link} clsact"),
        format!("tc filter del dev {link} ingress"),
        "tc qdisc del dev fairlead.vxlan clsact".to_owned(),
    ] {
        repaired_after(node, TOLD, &["program"], || drop(node.must_run(&["sh", "-c", &harm])));
        stage.assert_policy_holds(&harm);
    }
}

#[test]
fn c32_guards_that_are_removed_while_others_come_back_do_too() {
    let stage = Stage::new();
    let node = stage.node();
    let link = host_side(&stage.closed);
    for pause in 0..12 {
        // The second at any time of the look that the first brings about.
        let pause = f64::from(pause) * 0.015;
        let harm = format!("tc filter del dev {link} ingress; sleep {pause}; tc qdisc del dev fairlead.vxlan clsact");
        node.must_run(&["sh", "-c", &harm]);
        let begin = Instant::now();
        for link in [link.as_str(), "fairlead.vxlan"] {
            while node.must_run(&["tc", "filter", "show", "dev", link, "ingress"]).trim().is_empty() {
                assert!(begin.elapsed() < TOLD, "after a pause of {pause} s {link} has no guard");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    stage.assert_policy_holds("the guards are back");
}
