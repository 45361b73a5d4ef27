//! A thousand new connections a second, one kind of end after the other, by every path on which addresses are translated.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::{Drive, Ending, Lab, Pod, Probes, ServiceManifest, Sink, Vantage};

use crate::world::{PORT, assert_clean, at, outside};

/// New connections a second.
const RATE: u32 = 1_000;

/// How long for the addresses of a family.
const DURING: [Duration; 2] = [Duration::from_millis(2_000), Duration::from_millis(1_000)];

/// The NodePorts of the server on the client's node, and of the one elsewhere: TCP and UDP.
const NODE_PORTS: [u16; 2] = [30_490, 30_491];

struct World {
    lab: Lab,
    client: Pod,
    _sinks: Vec<Sink>,
}

/// The cluster that the tests share. It ends with their process.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::builder().nodes(2).start();
        let mut sinks = vec![lab.client().sink(PORT)];
        for ((node, number), node_port) in lab.nodes().iter().zip(1..).zip(NODE_PORTS) {
            let server = node.pod(&format!("load/server-{number}")).start();
            sinks.push(server.sink(PORT));
            let ips = [format!("10.96.49.{number}"), format!("fd00:10:96::49:{number}")];
            let service = ServiceManifest::new(&format!("load/{}", node.name())).ips(&ips);
            let service = service.tcp("tcp", PORT, PORT).udp("udp", PORT, PORT).node_ports(&[node_port, node_port]);
            lab.apply(&service.endpoint(&server).yaml());
        }
        let client = lab.node("node-1").pod("load/client").start();
        let world = World { client, lab, _sinks: sinks };
        for (_, from, to) in paths(&world) {
            for (ip, ending) in to.into_iter().flat_map(|ip| [(ip, Ending::ClientCloses), (ip, Ending::Datagram)]) {
                let once = Drive { to: ip, ending, rate: 10, during: Duration::from_millis(50) };
                world.lab.wait_until(&format!("{ip} answers"), || {
                    let driven = from.drive(&once);
                    if driven.errors() == 0 { Ok(()) } else { Err(driven.failed) }
                });
            }
        }
        world
    })
}

/// The paths: what each is, from where, and where to in each family.
fn paths(world: &World) -> [(&'static str, &Vantage, [SocketAddr; 2]); 3] {
    let node = world.lab.node("node-1").ips();
    let [here, elsewhere] = NODE_PORTS.map(|port| node.map(|ip| at(ip, port)));
    [
        ("pod to the outside", world.client.vantage(), outside()),
        ("outside to a NodePort, backend here", world.lab.client(), here),
        ("outside to a NodePort, backend elsewhere", world.lab.client(), elsewhere),
    ]
}

/// Loads every path. Whether the pace was kept is the machine's affair; that every exchange succeeds is not.
fn load(ending: Ending) {
    let world = world();
    for (path, from, to) in paths(world) {
        for (to, during) in to.into_iter().zip(DURING) {
            let driven = from.drive(&Drive { to, ending, rate: RATE, during });
            assert_clean(&world.lab, &driven, &format!("{path}, {to}, {ending}"));
            assert!(
                driven.attempted >= 200,
                "{path}: only {} in {during:?}: {:?} behind",
                driven.attempted,
                driven.behind
            );
        }
    }
}

#[test]
fn s49_connections_that_the_server_closes() {
    load(Ending::ServerCloses);
}

#[test]
fn s49_connections_that_the_client_closes() {
    load(Ending::ClientCloses);
}

#[test]
fn s49_connections_that_are_reset() {
    load(Ending::Reset);
}

#[test]
fn s49_questions_over_udp() {
    load(Ending::Datagram);
}
