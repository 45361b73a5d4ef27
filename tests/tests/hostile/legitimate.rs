//! What looks like an attack and is none.

use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::frames::flags::{ACK, SYN};
use fairlead_tests::frames::tcp_flags;
use fairlead_tests::{Ping, Probe, ProbeError, Probes, ServiceManifest, Via};

use crate::world::world;

#[test]
fn a_lost_syn_is_sent_again_and_goes_to_the_same_backend() {
    let lab = world();
    let client = lab.node("node-1").pod("again/client").start();
    let servers =
        [("node-1", "again/near"), ("node-2", "again/far")].map(|(node, key)| lab.node(node).pod(key).tcp(80).start());
    let ips = ["10.96.70.1", "fd00:10:96::70:1"];
    let service = ServiceManifest::new("again/service").ips(&ips).tcp("http", 80, 80);
    lab.apply(&service.endpoints(&[&servers[0], &servers[1]]).yaml());
    for (family, to) in ips.into_iter().enumerate() {
        let to: std::net::IpAddr = to.parse().unwrap();
        let from = client.via(Via::Packet);
        lab.wait_until("the service answers", || from.tcp(to, 80));
        let own = client.ips()[family].to_string();
        // No server finds its way back: the first SYN is not answered.
        let route = |verb: &str| {
            servers.iter().for_each(|server| drop(server.must_run(&["ip", "route", verb, "blackhole", &own])));
        };
        route("add");
        let mut seen = servers.each_ref().map(|server| server.packets("eth0"));
        let syn = |frame: &fairlead_tests::Frame| {
            !frame.outgoing && tcp_flags(&frame.bytes()).is_some_and(|flags| flags & (SYN | ACK) == SYN)
        };
        let (first, reply) = thread::scope(|scope| {
            let probe = Probe::tcp(to, 80).timeout(Duration::from_secs(20));
            let asks = scope.spawn(move || from.probe(&probe));
            let came = |seen: &mut fairlead_tests::Packets| seen.wait_for(Duration::from_millis(20), syn).is_some();
            let first = lab.wait_until("the first SYN comes", || seen.iter_mut().position(came).ok_or("no SYN"));
            route("del");
            (first, asks.join().expect("it asks"))
        });
        let reply = reply.expect("a later SYN is answered");
        assert!(reply.took >= Duration::from_millis(900), "the first was not: {reply:?}");
        assert_eq!(reply.server.pod, servers[first].key(), "the server that got the first got the second");
    }
}

#[test]
fn a_port_is_used_again_right_after_a_close() {
    const TIMES: usize = 200;
    let lab = world();
    let client = lab.node("node-1").pod("reuse/client").start();
    // The client's own kernel lets go of a port at once.
    client.must_run(&["sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=0"]);
    let servers =
        [("node-1", "reuse/near"), ("node-2", "reuse/far")].map(|(node, key)| lab.node(node).pod(key).tcp(80).start());
    let ips = ["10.96.70.2", "fd00:10:96::70:2"];
    let service = ServiceManifest::new("reuse/service").ips(&ips).tcp("http", 80, 80);
    lab.apply(&service.endpoints(&[&servers[0], &servers[1]]).yaml());
    let from = client.via(Via::Packet);
    for to in ips.map(|ip| ip.parse::<std::net::IpAddr>().unwrap()) {
        lab.wait_until("the service answers", || from.tcp(to, 80));
        let closes = Probe::tcp(to, 80).source_port(45_678);
        for number in 0..TIMES {
            // Half of them end in order, half with a reset.
            let probe = if number % 2 == 0 { closes.clone() } else { closes.clone().abort() };
            let started = Instant::now();
            let outcome = loop {
                match from.probe(&probe) {
                    // Still closing, as the client's kernel has it: nothing was sent.
                    Err(ProbeError::Other(why)) if why.contains("assign") => {
                        assert!(started.elapsed() < Duration::from_secs(20), "{why}");
                    }
                    other => break other,
                }
            };
            outcome.unwrap_or_else(|error| panic!("connection {number} to {to}: {error}"));
        }
    }
}

#[test]
fn errors_of_a_flows_own_end_and_of_routers_arrive() {
    let lab = world();
    let client = lab.node("node-1").pod("told/client").start();
    for (number, node) in [(3, "node-1"), (4, "node-2")] {
        let backend = lab.node(node).pod(&format!("told/backend-{node}")).start();
        let ips = [format!("10.96.70.{number}"), format!("fd00:10:96::70:{number}")];
        let service = ServiceManifest::new(&format!("told/closed-{node}")).ips(&ips).udp("ask", 53, 9999);
        lab.apply(&service.endpoint(&backend).yaml());
        for to in ips.map(|ip| ip.parse::<std::net::IpAddr>().unwrap()) {
            for via in Via::BOTH {
                let probe = Probe::udp(to, 53).timeout(Duration::from_millis(300));
                // Kernels limit how many errors they send.
                lab.wait_until(&format!("{to} refuses by {via:?}"), || match client.via(via).probe(&probe) {
                    Err(ProbeError::Refused) => Ok(()),
                    other => Err(format!("{other:?}")),
                });
            }
        }
    }
    lab.fabric().must_run(&["ip", "link", "set", "dev", "far-client", "mtu", "1300"]);
    for to in ["192.0.2.100", "2001:db8::100"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()) {
        assert_eq!(client.ping(&Ping::new(to).payload(1400)), Err(ProbeError::TooBig), "{to}");
        assert_eq!(client.ping(&Ping::new(to).payload(1200)).unwrap().size, 1200, "{to}");
    }
}
