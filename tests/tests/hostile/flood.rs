//! One pod opens all the flows that it can, beside a hundred that wait for slow answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::frames::flags::{ACK, SYN};
use fairlead_tests::frames::{Segment, Wire, datagram, ends, segment, tcp_flags};
use fairlead_tests::{Drops, Lab, Pod, Probes, binary};
use serde_json::Value;

/// Where answers come from, and where none do: addresses of the nodes' network that nobody has.
const SLOW: [&str; 2] = ["172.18.0.150", "fd00:172:18::150"];
const SILENT: [&str; 2] = ["172.18.0.151", "fd00:172:18::151"];

/// The ports that answer.
const PORTS: (u16, u16) = (7_300, 7_301);

/// How long they take: over UDP, and for a handshake.
const UDP_TAKES: Duration = Duration::from_secs(2);
const TCP_TAKES: Duration = Duration::from_secs(1);

/// Pods that wait.
const QUIET: usize = 100;

/// How long the flood lasts if nobody ends it: longer than everything else.
const FLOOD: &str = "60";

fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().expect("it is an address"))
}

/// Answers what comes to the slow addresses, after its time. Ends when it is told to.
fn answer(wire: &mut Wire, done: &AtomicBool) {
    let mut waiting: Vec<(Instant, u16, Vec<u8>)> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let come = wire.packets.collect(Duration::from_millis(20), |frame| {
            !frame.outgoing && ends(&frame.bytes()).is_some_and(|(_, to)| ips(SLOW).contains(&to))
        });
        let now = Instant::now();
        for frame in come {
            let bytes = frame.bytes();
            let Some((from, to)) = ends(&bytes) else { continue };
            let l4 = if from.is_ipv4() { 34 } else { 54 };
            let port = |at: usize| u16::from_be_bytes([bytes[l4 + at], bytes[l4 + at + 1]]);
            let (takes, (kind, packet)) = match tcp_flags(&bytes) {
                Some(SYN) => {
                    let seq = u32::from_be_bytes(bytes[l4 + 4..l4 + 8].try_into().unwrap());
                    let says = Segment { ack: seq.wrapping_add(1), ..Segment::new(SYN | ACK) };
                    (TCP_TAKES, segment(to, from, (port(2), port(0)), &says))
                }
                Some(_) => continue,
                None => (UDP_TAKES, datagram(to, from, (port(2), port(0)), b"at last")),
            };
            waiting.push((now + takes, kind, packet));
        }
        waiting.retain(|(at, kind, packet)| {
            let due = *at <= now;
            if due {
                wire.send(*kind, packet);
            }
            !due
        });
    }
}

/// Sends both questions of a pod in both families.
fn ask(wire: &mut Wire, pod: &Pod) {
    for (own, to) in pod.ips().into_iter().zip(ips(SLOW)) {
        let (kind, packet) = datagram(own, to, (5_000, PORTS.0), b"a question");
        wire.send(kind, &packet);
        let (kind, packet) = segment(own, to, (5_001, PORTS.1), &Segment::new(SYN));
        wire.send(kind, &packet);
    }
}

/// What has come to each of the pods: from and to whom, and whether it was a SYN with ACK or a datagram. Waits until each has
/// all four, or everything is there that comes.
fn answers(wires: &mut [Wire]) -> Vec<BTreeSet<(IpAddr, IpAddr, Option<u8>)>> {
    let mut all = vec![BTreeSet::new(); wires.len()];
    let end = Instant::now() + UDP_TAKES + Duration::from_secs(20);
    while all.iter().any(|answers| answers.len() < 4) && Instant::now() < end {
        for (answers, wire) in all.iter_mut().zip(wires.iter_mut()).filter(|(answers, _)| answers.len() < 4) {
            for frame in wire.packets.collect(Duration::from_millis(1), |frame| !frame.outgoing) {
                let bytes = frame.bytes();
                if let Some((from, to)) = ends(&bytes).filter(|(from, _)| ips(SLOW).contains(from)) {
                    answers.insert((from, to, tcp_flags(&bytes)));
                }
            }
        }
    }
    all
}

#[test]
fn one_pod_that_floods_takes_no_answer_from_a_hundred_that_wait() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let mut server = Wire::to_uplink(lab.client(), node);
    // The host outside has the frames for the one, and its kernel nothing to say to them. Those for the other end at the bridge:
    // it sends nothing back to where it came from.
    for (ips, mac) in [(ips(SLOW), server.own), (ips(SILENT), server.gateway)] {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        for ip in ips.map(|ip| ip.to_string()) {
            node.must_run(&["ip", "neigh", "replace", &ip, "lladdr", &mac, "dev", "eth0", "nud", "permanent"]);
        }
    }
    let flooder = node.pod("flood/flooder").start();
    let quiet: Vec<(Pod, Wire)> = thread::scope(|scope| {
        let start = |n: usize| {
            let pod = node.pod(&format!("flood/quiet-{n}")).start();
            let wire = Wire::of(&pod);
            (pod, wire)
        };
        let part = |part: usize| move || (part..QUIET).step_by(4).map(start).collect::<Vec<_>>();
        let parts: Vec<_> = (0..4).map(|number| scope.spawn(part(number))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let (pods, mut wires): (Vec<Pod>, Vec<Wire>) = quiet.into_iter().unzip();
    let program = binary("fairlead-lab").unwrap();
    let [v4, v6] = SILENT;
    let flood = flooder.spawn("flood", &[program.to_str().unwrap(), "flood", v4, v6, "--seconds", FLOOD], &[]);
    let refused = || {
        let drops = Drops::of(node);
        drops.count("flow_rate") + drops.count("flow_limit")
    };
    lab.wait_until("the flooder has all that it may have", || if refused() > 0 { Ok(()) } else { Err(flood.log()) });
    let done = AtomicBool::new(false);
    let (answers, refused_while_waiting) = thread::scope(|scope| {
        scope.spawn(|| answer(&mut server, &done));
        let before = refused();
        wires.iter_mut().zip(&pods).for_each(|(wire, pod)| ask(wire, pod));
        let answers = answers(&mut wires);
        let refused = refused() - before;
        done.store(true, Ordering::Relaxed);
        (answers, refused)
    });
    flood.kill(libc::SIGKILL);
    let lost: Vec<_> = pods.iter().zip(answers).filter(|(_, answers)| answers.len() < 4).collect();
    let first = lost.first().map(|(pod, answers)| (pod.key(), answers));
    assert!(lost.is_empty(), "{} pods of {QUIET} miss answers: {first:?}; {:?}", lost.len(), Drops::of(node).counts());
    assert!(refused_while_waiting > 0, "the flood went on meanwhile: {}", flood.log());
}

/// Flows that a pod may have open at a time by default.
const MAX_OPEN: u64 = 65_536;

/// Pods that come, take all that they can get, and go.
const GREEDY: usize = 4;

#[test]
fn pods_that_come_take_all_they_can_get_and_go_leave_nothing_of_it() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let quiet = node.pod("turns/quiet").udp(53).start();
    let asks = node.pod("turns/asks").start();
    let program = binary("fairlead-lab").unwrap();
    let in_use = || {
        let status: Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
        let maps = status["maps"].as_array().unwrap();
        maps.iter().find(|map| map["name"] == "CT_ANY").and_then(|map| map["used"].as_u64()).unwrap()
    };
    for number in 0..GREEDY {
        let greedy = node.pod(&format!("turns/greedy-{number}")).start();
        let [v4, v6] = quiet.ips().map(|ip| ip.to_string());
        let flood = greedy.spawn("flood", &[program.to_str().unwrap(), "flood", &v4, &v6, "--seconds", FLOOD], &[]);
        // Each gets as much as the first: nothing of those before counts, neither to it nor to all.
        lab.wait_within(Duration::from_secs(50), "it has all that it may have", || {
            match Drops::of(node).of_pod(greedy.key()).get("flow_limit") {
                Some(_) if in_use() >= MAX_OPEN => Ok(()),
                other => Err((other.copied(), in_use(), flood.log())),
            }
        });
        assert!(in_use() < MAX_OPEN + MAX_OPEN / 2, "{} flows after {number} pods", in_use());
        flood.kill(libc::SIGKILL);
        greedy.delete();
        // They would last for half a minute.
        lab.wait_within(Duration::from_secs(20), "its flows have gone with it", || match in_use() {
            few if few < MAX_OPEN / 64 => Ok(()),
            many => Err(many),
        });
        for ip in quiet.ips() {
            asks.udp(ip, 53).unwrap();
        }
    }
}
