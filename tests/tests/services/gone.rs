//! Pods that go while others talk to them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_tests::{Connection, Node, Pod, Probe, ProbeError, Probes, Process, Via, binary};

use crate::world::{ips, service, world};

/// How long one exchange may take: what is sent into the time before the agent has seen that the pod is gone is sent again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections to a server and to its service, both families, at the socket and per packet.
fn connections(from: &impl Probes, who: &str, server: &Pod, service: [IpAddr; 2]) -> Vec<(String, Connection)> {
    let mut open = Vec::new();
    for via in Via::BOTH {
        for (ip, port) in server.ips().map(|ip| (ip, 8080)).into_iter().chain(service.map(|ip| (ip, 80))) {
            let mut connection = from.via(via).connect(&Probe::tcp(ip, port).timeout(PATIENCE)).unwrap();
            connection.exchange(10, 10).unwrap();
            open.push((format!("{who} to {ip} by {via:?}"), connection));
        }
    }
    open
}

#[test]
fn s60_connections_to_a_pod_that_is_gone_are_reset() {
    let world = world();
    let server = |key: &str| world.lab.node("node-1").pod(key).tcp(8080).udp(5300).start();
    let (gone, stays) = (server("shop/gone"), server("shop/stays"));
    world.lab.apply(&service("s60", 60).endpoint(&gone).yaml());
    world.lab.apply(&service("s60-stays", 61).endpoint(&stays).yaml());
    world.reaches(&ips(60), &[&gone]);
    world.reaches(&ips(61), &[&stays]);
    let far = world.lab.node("node-2").pod("shop/far-client").start();
    let all = |server: &Pod, service: [IpAddr; 2]| {
        let mut open = connections(&world.client, "its neighbour", server, service);
        open.extend(connections(&far, "a pod of another node", server, service));
        open
    };
    let lost = all(&gone, ips(60));
    let mut kept = all(&stays, ips(61));
    gone.delete();
    for (name, mut connection) in lost {
        assert_eq!(connection.exchange(10, 10), Err(ProbeError::Reset), "{name}");
    }
    for (name, connection) in &mut kept {
        connection.exchange(10, 10).unwrap_or_else(|error| panic!("{name}, whose server stays: {error}"));
    }
    far.delete();
    stays.delete();
}

/// A process of a node with a connected socket.
struct Stays {
    name: String,
    process: Process,
}

impl Stays {
    fn start(node: &Node, transport: &str, to: SocketAddr) -> Self {
        let program = binary("fairlead-lab").unwrap();
        let (name, to) = (format!("{transport} to {to}"), to.to_string());
        let mut argv = vec![program.to_str().unwrap(), "stay", &to];
        argv.extend((transport == "UDP").then_some("--udp"));
        Self { process: node.spawn(&name.replace([' ', ':', '[', ']'], "-"), &argv, &[]), name }
    }

    /// One by each way to a pod: by its service over TCP and UDP, and straight, over both families.
    fn by_all_ways(node: &Node, service: [IpAddr; 2], pod: &Pod) -> Vec<Self> {
        let udp = service.map(|ip| Self::start(node, "UDP", SocketAddr::new(ip, 53)));
        let by_service = service.map(|ip| Self::start(node, "TCP", SocketAddr::new(ip, 80)));
        let straight = pod.ips().map(|ip| Self::start(node, "TCP", SocketAddr::new(ip, 8080)));
        udp.into_iter().chain(by_service).chain(straight).collect()
    }

    fn is_connected(&self) -> bool {
        self.process.log().starts_with("connected")
    }

    /// What ended it.
    fn ended(&self) -> String {
        let ended = self.process.wait(PATIENCE);
        assert!(ended.is_some(), "{} goes on: {}", self.name, self.process.log());
        self.process.log().lines().last().unwrap_or_default().to_owned()
    }
}

#[test]
fn s67_sockets_of_the_node_end_with_the_pod_that_they_lead_to() {
    let world = world();
    let node = world.lab.node("node-1");
    let server = |on: &str, key: &str| world.lab.node(on).pod(key).tcp(8080).udp(5300).start();
    let pods = [("node-1", "shop/s67-here"), ("node-2", "shop/s67-there"), ("node-1", "shop/s67-stays")]
        .map(|(on, key)| server(on, key));
    let of_service = |number: u8| format!("s{number}");
    for (number, pod) in (67..).zip(&pods) {
        world.lab.apply(&service(&of_service(number), number).endpoint(pod).yaml());
        world.reaches(&ips(number), &[pod]);
    }
    let [here, there, kept] =
        [67, 68, 69].map(|number| Stays::by_all_ways(node, ips(number), &pods[usize::from(number) - 67]));
    world.lab.wait_until("all are connected", || {
        let missing = here.iter().chain(&there).chain(&kept).find(|one| !one.is_connected());
        missing.map_or(Ok(()), |missing| Err(format!("{}: {}", missing.name, missing.process.log())))
    });
    let [pod_here, pod_there, pod_kept] = pods;
    pod_here.delete();
    for one in &here {
        assert_eq!(one.ended(), "ended: ConnectionAborted", "{}", one.name);
    }
    // Those by the service; what is connected straight hears of it from the other node.
    let (by_service, straight) = there.split_at(4);
    pod_there.delete();
    world.lab.apply(&service(&of_service(68), 68).endpoint(&pod_kept).yaml());
    for one in by_service {
        assert_eq!(one.ended(), "ended: ConnectionAborted", "{}", one.name);
    }
    for one in kept.iter().chain(straight) {
        assert_eq!(one.process.wait(Duration::ZERO), None, "{} stays: {}", one.name, one.process.log());
        one.process.kill(libc::SIGKILL);
    }
    pod_kept.delete();
}

#[test]
fn s67_udp_sockets_of_the_node_end_when_their_service_leaves_a_pod_that_lives() {
    const MOVES: u8 = 170;
    const KEEPS: u8 = 171;
    let world = world();
    let node = world.lab.node("node-1");
    if node.agent().log().contains("can't list the sockets that the hooks have redirected") {
        println!("left out: this kernel permits no program that lists sockets, which the agent has said");
        return;
    }
    let server = |on: &str, key: &str| world.lab.node(on).pod(key).tcp(8080).udp(5300).start();
    let (pod, other) = (server("node-2", "shop/s67-left"), server("node-1", "shop/s67-other"));
    let moves = |to: &Pod| service("s67-moves", MOVES).node_ports(&[30_980, 30_981]).endpoint(to).yaml();
    world.lab.apply(&moves(&pod));
    world.lab.apply(&service("s67-keeps", KEEPS).endpoint(&pod).yaml());
    world.reaches(&ips(MOVES), &[&pod]);
    world.reaches(&ips(KEEPS), &[&pod]);
    let start =
        |transport, ips: [IpAddr; 2], port| ips.map(|ip| Stays::start(node, transport, SocketAddr::new(ip, port)));
    let end = [start("UDP", ips(MOVES), 53), start("UDP", node.ips(), 30_981)].into_iter().flatten();
    let stay = [start("UDP", pod.ips(), 5300), start("UDP", ips(KEEPS), 53), start("TCP", ips(MOVES), 80)];
    let (end, stay): (Vec<_>, Vec<_>) = (end.collect(), stay.into_iter().flatten().collect());
    world.lab.wait_until("all are connected", || {
        let missing = end.iter().chain(&stay).find(|one| !one.is_connected());
        missing.map_or(Ok(()), |missing| Err(format!("{}: {}", missing.name, missing.process.log())))
    });
    world.lab.apply(&moves(&other));
    for one in &end {
        assert_eq!(one.ended(), "ended: ConnectionAborted", "{}", one.name);
    }
    for one in &stay {
        assert_eq!(one.process.wait(Duration::ZERO), None, "{} stays: {}", one.name, one.process.log());
        one.process.kill(libc::SIGKILL);
    }
    world.reaches(&ips(MOVES), &[&other]);
    pod.delete();
    other.delete();
}
